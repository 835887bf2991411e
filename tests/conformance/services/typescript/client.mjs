// What the official TypeScript client does against an ingress, printed as JSON: one member per step.
//
// INGRESS_URL, CONFORMANCE_PREFIX, CONFORMANCE_CLIENT (the client's module), NAME (a name nobody used).
// The ids of two awakeables arrive on standard input, when the test has read them from the handlers' notes.
import { readFileSync } from "node:fs";

const clients = await import(process.env.CONFORMANCE_CLIENT);
const { INGRESS_URL: url, CONFORMANCE_PREFIX: prefix, NAME: name } = process.env;
const ingress = clients.connect({ url });
const named = (service) => ({ name: prefix + service });
const done = {};

done.call = await ingress.serviceClient(named("Calls")).greet({ name });

const keyed = clients.rpc.opts({ idempotencyKey: name });
done.idempotent = [
  await ingress.serviceClient(named("Runs")).once({ effect: name }, keyed),
  await ingress.serviceClient(named("Runs")).once({ effect: name }, keyed),
];

const counter = ingress.objectClient(named("Counter"), `${name}/ü`);
done.object = [await counter.add({ by: 2 }), await counter.add({ by: 3 }), await counter.key({})];

// The client only attaches to sends that carry an idempotency key.
const later = clients.rpc.sendOpts({ delay: 50, idempotencyKey: name });
const send = await ingress.serviceSendClient(named("Calls")).greet({ name: "later" }, later);
done.send = [send.status, await ingress.result(send)];

const flow = ingress.workflowClient(named("Flow"), name);
const submitted = await flow.workflowSubmit({ effect: `${name}-flow` });
const early = await flow.workflowOutput();
await flow.approve({ value: "yes" });
const answer = await flow.workflowAttach();
done.workflow = [submitted.status, early.ready, answer, (await flow.workflowOutput()).ready];

try {
  await ingress.serviceClient(named("Errors")).terminal({ message: "as it must", code: 418 });
} catch (e) {
  done.failure = [e.status, JSON.parse(e.responseText).message];
}

const typed = clients.rpc.opts({ input: clients.serde.json, output: clients.serde.json });
// The outcome of an invocation is never asked for again, whatever its code says.
let requests = 0;
const fetchOnce = globalThis.fetch;
globalThis.fetch = (...told) => (requests++, fetchOnce(...told));
try {
  const stubborn = clients.connect({ url, retry: true });
  const kept = clients.rpc.opts({ idempotencyKey: `${name}-stubborn` });
  await stubborn.serviceClient(named("Errors")).terminal({ message: "no", code: 503 }, kept);
} catch (e) {
  done.notRetried = [e.status, requests];
}
globalThis.fetch = fetchOnce;

done.generic = await ingress.call({ service: prefix + "Calls", handler: "greet", parameter: { name }, opts: typed });

const toObject = clients.rpc.sendOpts({ delay: 20, idempotencyKey: `${name}-object` });
const added = await ingress.objectSendClient(named("Counter"), `${name}/ü`).add({ by: 4 }, toObject);
done.objectSend = [added.status, await ingress.result(added)];

// Flow control is off by default: a scope is refused.
try {
  await ingress.scope(name).serviceClient(named("Calls")).greet({ name });
} catch (e) {
  done.scoped = [e.status, JSON.parse(e.responseText).source];
}

const waits = (note) => {
  const kept = clients.rpc.sendOpts({ idempotencyKey: note });
  return ingress.serviceSendClient(named("Awakeables")).wait({ note }, kept);
};
const resolved = await waits(name);
const rejected = await waits(`${name}-rejected`);
const [first, second] = readFileSync(0, "utf8").trim().split("\n");
await ingress.resolveAwakeable(first, { some: "thing" });
await ingress.rejectAwakeable(second, "not this one");
done.awakeables = [await ingress.result(resolved), await ingress.result(rejected)];

console.log(JSON.stringify(done));
