// Serves the conformance services on PORT: over h2c, as the SDK does by default, or over HTTP/1.1 with
// CONFORMANCE_TRANSPORT=http1. CONFORMANCE_SDK is the SDK's entry point for Node.
import { createServer } from "node:http";
import { identityKeys, restate, services } from "./services.mjs";

const port = Number(process.env.PORT);
if (process.env.CONFORMANCE_TRANSPORT === "http1") {
  createServer(restate.createEndpointHandler({ services, identityKeys, bidirectional: false })).listen(port, "127.0.0.1");
} else {
  await restate.serve({ services, identityKeys, port });
}
