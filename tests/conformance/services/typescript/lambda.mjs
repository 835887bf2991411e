// The conformance services as a Lambda function: the loop that the Node runtime of Lambda runs, as far as its
// documented runtime API goes. CONFORMANCE_SDK is the SDK's entry point for Lambda.
const base = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime`;

function described(error) {
  return JSON.stringify({ errorType: error.name, errorMessage: error.message, stackTrace: [String(error.stack)] });
}

async function post(path, body) {
  const answer = await fetch(base + path, { method: "POST", body });
  await answer.arrayBuffer();
}

let handler;
try {
  const { identityKeys, restate, services } = await import("./services.mjs");
  handler = restate.createEndpointHandler({ services, identityKeys });
} catch (error) {
  await post("/init/error", described(error));
  process.exit(1);
}

for (;;) {
  const next = await fetch(`${base}/invocation/next`);
  const event = await next.json();
  const id = next.headers.get("lambda-runtime-aws-request-id");
  const deadline = Number(next.headers.get("lambda-runtime-deadline-ms"));
  const context = {
    awsRequestId: id,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    invokedFunctionArn: next.headers.get("lambda-runtime-invoked-function-arn"),
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
  try {
    await post(`/invocation/${id}/response`, JSON.stringify(await handler(event, context)));
  } catch (error) {
    await post(`/invocation/${id}/error`, described(error));
  }
}
