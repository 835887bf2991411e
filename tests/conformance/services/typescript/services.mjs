// The conformance services on the official TypeScript SDK; `../python/app.py` has them name for name.
//
// The SDK is not resolved from this folder: CONFORMANCE_SDK is the file of the entry point the transport wants
// (all entry points export the same API). CONFORMANCE_PREFIX goes before every service name.
import { count, note, passed, raised } from "./effects.mjs";

const restate = await import(process.env.CONFORMANCE_SDK);
const { RestatePromise, TerminalError, RetryableError } = restate;
const prefix = process.env.CONFORMANCE_PREFIX;

// Tests wait for retries; the server's default of half a second would be most of their time.
const quick = { initialInterval: 20, exponentiationFactor: 1.5, maxInterval: 200 };
const policy = (maxAttempts, onMaxAttempts) => ({
  initialInterval: 20,
  exponentiationFactor: 1,
  maxAttempts,
  onMaxAttempts,
});
const hour = 3_600_000;
const binary = { input: restate.serde.binary, output: restate.serde.binary, accept: "*/*" };

const service = (name, handlers, options = {}) =>
  restate.service({ name: prefix + name, handlers, options: { retryPolicy: quick, ...options } });
const named = (name) => ({ name: prefix + name });

// --- Runs: side effects recorded once
const runs = service("Runs", {
  once: async (ctx, req) => ctx.run("once", () => count(req.effect)),

  three: async (ctx, req) => {
    const counts = [];
    for (let n = 0; n < 3; n++) {
      counts.push(await ctx.run(`step ${n}`, () => count(`${req.effect}-${n}`)));
    }
    return counts;
  },

  parallel: async (ctx, req) =>
    RestatePromise.all([0, 1, 2].map((n) => ctx.run(`step ${n}`, () => count(`${req.effect}-${n}`)))),

  flaky: async (ctx, req) => {
    const attempt = () => {
      const number = count(req.effect);
      if (number <= req.failures) throw new Error(`failure ${number}`);
      return number;
    };
    const options = { maxRetryAttempts: req.attempts, initialRetryInterval: 10, retryIntervalFactor: 1 };
    try {
      return { succeeded: await ctx.run("flaky", attempt, options) };
    } catch (e) {
      if (!(e instanceof TerminalError)) throw e;
      return { exhausted: e.message, code: e.code };
    }
  },

  terminal: async (ctx, req) => {
    try {
      await ctx.run("refuse", () => {
        count(req.effect);
        throw new TerminalError("refused inside", { errorCode: 418 });
      });
    } catch (e) {
      if (!(e instanceof TerminalError)) throw e;
      return { message: e.message, code: e.code };
    }
  },

  gated: async (ctx, req) => {
    const before = await ctx.run("before", () => count(`${req.effect}-before`));
    const during = await ctx.run("gated", async () => {
      const number = count(req.effect);
      await passed(req.gate);
      return number;
    });
    const after = await ctx.run("after", () => count(`${req.effect}-after`));
    return { before, during, after };
  },
});

// --- Timers
const timers = service("Timers", {
  sleep: async (ctx, req) => {
    await ctx.sleep(req.ms);
    return "slept";
  },

  between: async (ctx, req) => {
    const before = await ctx.run("before", () => count(`${req.effect}-before`));
    await ctx.run("ready", () => count(`${req.effect}-ready`));
    await ctx.sleep(req.ms);
    return [before, await ctx.run("after", () => count(`${req.effect}-after`))];
  },

  race: async (ctx, req) =>
    RestatePromise.race([ctx.sleep(60_000).map(() => "slow"), ctx.sleep(req.ms).map(() => "fast")]),
});

// --- Calls: from handler to handler
const calls = service("Calls", {
  greet: async (ctx, req) => {
    if (req.effect !== undefined) await ctx.run("greet", () => count(req.effect));
    return `hello ${req.name}`;
  },

  call_service: async (ctx, req) => ctx.serviceClient(named("Calls")).greet(req),

  call_object: async (ctx, req) => {
    const counter = ctx.objectClient(named("Counter"), req.key);
    await counter.add({ by: req.by });
    return counter.value({});
  },

  call_workflow: async (ctx, req) => {
    const flow = ctx.workflowClient(named("Flow"), req.key);
    await flow.approve({ value: "yes" });
    return flow.run({ effect: req.effect });
  },

  call_self: async (ctx, req) =>
    req.depth === 0 ? 0 : 1 + (await ctx.serviceClient(named("Calls")).call_self({ depth: req.depth - 1 })),

  call_many: async (ctx, req) => {
    const client = ctx.serviceClient(named("Calls"));
    return RestatePromise.all(Array.from({ length: req.n }, (_, n) => client.greet({ name: String(n) })));
  },

  call_generic: async (ctx, _req) => {
    const parameter = new TextEncoder().encode('{"name":"generic"}');
    return new TextDecoder().decode(
      await ctx.genericCall({ service: `${prefix}Calls`, method: "greet", parameter }),
    );
  },

  call_with_header: async (ctx, req) =>
    ctx
      .serviceClient(named("Payloads"))
      .headers({}, restate.rpc.opts({ headers: { "x-from-caller": req.value } })),

  call_idempotent: async (ctx, req) => {
    const client = ctx.serviceClient(named("Calls"));
    const body = { name: "twice", effect: req.effect };
    const first = client.greet(body, restate.rpc.opts({ idempotencyKey: req.key }));
    const second = client.greet(body, restate.rpc.opts({ idempotencyKey: req.key }));
    const same = (await first.invocationId) === (await second.invocationId);
    return { same, results: [await first, await second] };
  },

  call_failing: async (ctx, req) => {
    try {
      return await ctx.serviceClient(named("Errors")).terminal(req);
    } catch (e) {
      if (!(e instanceof TerminalError)) throw e;
      return { message: e.message, code: e.code, metadata: e.metadata ?? {} };
    }
  },

  pass_on_failure: async (ctx, req) => ctx.serviceClient(named("Errors")).terminal(req),

  call_missing: async (ctx, _req) => ctx.serviceClient(named("Absent")).nothing({}),

  call_hidden: async (ctx, _req) => [
    await ctx.serviceClient(named("Hidden")).secret({}),
    await ctx.serviceClient(named("Calls")).internal({}),
  ],

  internal: restate.handlers.handler({ ingressPrivate: true }, async (_ctx, _req) => "internal"),

  send: async (ctx, req) =>
    ctx.serviceSendClient(named("Calls")).greet({ name: "sent", effect: req.effect }).invocationId,

  send_delayed: async (ctx, req) =>
    ctx
      .serviceSendClient(named("Calls"))
      .greet({ name: "later", effect: req.effect }, restate.rpc.sendOpts({ delay: req.ms })).invocationId,

  send_in_order: async (ctx, req) => {
    for (let n = 0; n < req.n; n++) ctx.objectSendClient(named("Counter"), req.key).append({ value: n });
    return ctx.objectClient(named("Counter"), req.key).fetch({ name: "list" });
  },

  attach: async (ctx, req) => {
    try {
      return { result: await ctx.attach(req.id) };
    } catch (e) {
      if (!(e instanceof TerminalError)) throw e;
      return { message: e.message, code: e.code };
    }
  },
});

// --- Counter and LazyCounter: virtual objects, eager and lazy state
const exclusive = {
  add: async (ctx, req) => {
    const total = ((await ctx.get("total")) ?? 0) + req.by;
    ctx.set("total", total);
    return total;
  },

  append: async (ctx, req) => {
    const values = [...((await ctx.get("list")) ?? []), req.value];
    ctx.set("list", values);
    return values;
  },

  put: async (ctx, req) => {
    for (const [name, value] of Object.entries(req)) ctx.set(name, value);
    return "put";
  },

  fetch: async (ctx, req) => ctx.get(req.name),

  drop: async (ctx, req) => {
    ctx.clear(req.name);
    return ctx.get(req.name);
  },

  drop_all: async (ctx, _req) => {
    ctx.clearAll();
    return (await ctx.stateKeys()).sort();
  },

  // Reads, writes and reads again around suspensions; every read must see the write before it.
  rewrite: async (ctx, _req) => {
    const seen = [await ctx.get("total")];
    ctx.set("total", 10);
    seen.push(await ctx.get("total"));
    await ctx.sleep(10);
    seen.push(await ctx.get("total"));
    ctx.clear("total");
    await ctx.run("pause", () => {});
    seen.push(await ctx.get("total"));
    ctx.set("total", 20);
    return [...seen, await ctx.get("total")];
  },

  // Keeps the key until the awakeable whose id it notes is resolved.
  hold: async (ctx, req) => {
    const { id, promise } = ctx.awakeable();
    await ctx.run("note", () => note(req.note, id));
    return promise;
  },
};
const shared = {
  value: async (ctx, _req) => ctx.get("total"),
  keys: async (ctx, _req) => (await ctx.stateKeys()).sort(),
  key: async (ctx, _req) => ctx.key,
};
const object = (name, options) => {
  const asShared = ([handler, f]) => [handler, restate.handlers.object.shared({}, f)];
  const handlers = { ...exclusive, ...Object.fromEntries(Object.entries(shared).map(asShared)) };
  return restate.object({ name: prefix + name, handlers, options: { retryPolicy: quick, ...options } });
};
const counter = object("Counter", {});
const lazyCounter = object("LazyCounter", { enableLazyState: true });

// --- Flow: a workflow with durable promises
const flow = restate.workflow({
  name: `${prefix}Flow`,
  options: { retryPolicy: quick },
  handlers: {
    run: async (ctx, req) => {
      const number = await ctx.run("start", () => count(req.effect));
      ctx.set("stage", "waiting");
    await ctx.run("ready", () => count(`${req.effect}-ready`));
      const answer = await ctx.promise("approval");
      ctx.set("stage", "done");
      return { answer, runs: number };
    },
    approve: async (ctx, req) => {
      await ctx.promise("approval").resolve(req.value);
      return "approved";
    },
    reject: async (ctx, req) => {
      await ctx.promise("approval").reject(req.reason);
      return "rejected";
    },
    peek: async (ctx, _req) => (await ctx.promise("approval").peek()) ?? null,
    wait: async (ctx, _req) => ctx.promise("approval"),
    stage: async (ctx, _req) => ctx.get("stage"),
  },
});

// --- Awakeables
const awakeables = service("Awakeables", {
  wait: async (ctx, req) => {
    const { id, promise } = ctx.awakeable();
    await ctx.run("note", () => note(req.note, id));
    try {
      return { value: await promise };
    } catch (e) {
      if (!(e instanceof TerminalError) || e.code === 409) throw e; // 409: cancelled, not rejected
      return { message: e.message, code: e.code };
    }
  },

  wait_for_two: async (ctx, req) => {
    const first = ctx.awakeable();
    const second = ctx.awakeable();
    await ctx.run("note", () => note(req.note, `${first.id} ${second.id}`));
    return [await first.promise, await second.promise];
  },

  resolve: async (ctx, req) => {
    ctx.resolveAwakeable(req.id, req.value);
    return "resolved";
  },

  reject: async (ctx, req) => {
    ctx.rejectAwakeable(req.id, req.reason);
    return "rejected";
  },
});

// --- Combine: waiting for several results
const combine = service("Combine", {
  all: async (ctx, _req) =>
    RestatePromise.all([
      ctx.serviceClient(named("Calls")).greet({ name: "a" }),
      ctx.run("b", () => "b"),
      ctx.serviceClient(named("Timers")).sleep({ ms: 20 }),
    ]),

  first: async (ctx, _req) => {
    const fast = ctx.serviceClient(named("Calls")).greet({ name: "fast" });
    const slow = ctx.serviceClient(named("Timers")).sleep({ ms: 60_000 });
    const winner = await RestatePromise.race([
      slow.map((value) => ["slow", value]),
      fast.map((value) => ["fast", value]),
    ]);
    ctx.cancel(await slow.invocationId);
    return winner;
  },

  // The first success: failures are passed over.
  any: async (ctx, _req) =>
    RestatePromise.any([
      ctx.serviceClient(named("Errors")).terminal({ message: "not me", code: 400 }),
      ctx.serviceClient(named("Timers")).sleep({ ms: 30 }),
    ]),

  settled: async (ctx, _req) => {
    const outcomes = await RestatePromise.allSettled([
      ctx.serviceClient(named("Errors")).terminal({ message: "bad", code: 400 }),
      ctx.serviceClient(named("Calls")).greet({ name: "good" }),
    ]);
    return outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : outcome.reason.message));
  },

  timeout: async (ctx, req) => {
    try {
      await ctx.awakeable().promise.orTimeout(req.ms);
      return "answer";
    } catch (e) {
      if (!(e instanceof restate.TimeoutError)) throw e;
      return "timeout";
    }
  },
});

// --- Cancels
const cancels = service("Cancels", {
  // Waits for ever; on a cancel compensates, and passes the cancel on.
  wait: async (ctx, req) => {
    await ctx.run("started", () => count(`${req.effect}-started`));
    try {
      await ctx.run("ready", () => count(`${req.effect}-ready`));
      await ctx.sleep(hour);
    } catch (e) {
      if (!(e instanceof TerminalError)) throw e;
      await ctx.run("undo", () => count(`${req.effect}-undone`));
      throw e;
    }
    return "not cancelled";
  },

  // Waits for ever; on a cancel compensates with steps that suspend, and ends well.
  compensate: async (ctx, req) => {
    await ctx.run("started", () => count(`${req.effect}-started`));
    try {
      await ctx.run("ready", () => count(`${req.effect}-ready`));
      await ctx.sleep(hour);
    } catch (e) {
      if (!(e instanceof TerminalError)) throw e;
      await ctx.sleep(20);
      await ctx.serviceClient(named("Calls")).greet({ name: "undo", effect: `${req.effect}-undone` });
      await ctx.sleep(20);
      return { compensated: e.code };
    }
    return "not cancelled";
  },

  parent: async (ctx, req) => ctx.serviceClient(named("Cancels")).wait(req),

  // One child called, one sent, one sent for later; waits for the called one.
  parent_of_three: async (ctx, req) => {
    const called = ctx.serviceClient(named("Cancels")).wait({ effect: `${req.effect}-called` });
    const sender = ctx.serviceSendClient(named("Cancels"));
    const sent = sender.wait({ effect: `${req.effect}-sent` });
    const later = sender.wait({ effect: `${req.effect}-later` }, restate.rpc.sendOpts({ delay: hour }));
    const ids = [await called.invocationId, await sent.invocationId, await later.invocationId];
    await ctx.run("note", () => note(req.note, ids.join(" ")));
    return called;
  },

  cancel: async (ctx, req) => {
    ctx.cancel(req.id);
    return "cancelled";
  },
});

// --- Errors
const errors = service("Errors", {
  terminal: async (_ctx, req) => {
    throw new TerminalError(req.message, { errorCode: req.code, metadata: req.metadata });
  },

  // Fails, outside of any run, the first attempts.
  flaky: async (ctx, req) => {
    const before = await ctx.run("before", () => count(`${req.effect}-before`));
    const number = count(req.effect);
    if (number <= req.failures) throw new Error(`attempt ${number} fails`);
    return { before, attempts: number };
  },

  retry_after: async (_ctx, req) => {
    const number = count(req.effect);
    if (number <= req.failures) throw new RetryableError("later", { retryAfter: req.ms });
    return number;
  },

  killed_after_two: restate.handlers.handler({ retryPolicy: policy(2, "kill") }, async (_ctx, req) => {
    count(req.effect);
    throw new Error("last words");
  }),

  paused_after_two: restate.handlers.handler({ retryPolicy: policy(2, "pause") }, async (_ctx, req) => {
    const number = count(req.effect);
    if (!raised(req.flag)) throw new Error("not yet");
    return number;
  }),
});

// --- Payloads
const payloads = service("Payloads", {
  bytes: restate.handlers.handler(binary, async (_ctx, body) => body),

  bytes_through_a_call: restate.handlers.handler(binary, async (ctx, body) =>
    ctx.genericCall({ service: `${prefix}Payloads`, method: "bytes", parameter: body }),
  ),

  bytes_through_a_run: restate.handlers.handler(binary, async (ctx, body) =>
    ctx.run("keep", () => body, { serde: restate.serde.binary }),
  ),

  json: async (_ctx, req) => req,

  headers: async (ctx, _req) => Object.fromEntries(ctx.request().headers),

  invocation_id: async (ctx, _req) => ctx.request().id,

  nothing: restate.handlers.handler(
    { input: restate.serde.empty, output: restate.serde.empty },
    async (_ctx) => undefined,
  ),

  // The same number before and after a suspension.
  random: async (ctx, req) => {
    const first = JSON.stringify([ctx.rand.random(), ctx.rand.uuidv4()]);
    await ctx.run("note", () => note(req.note, first));
    return first;
  },
});

// --- Signals
const signals = service("Signals", {
  wait: async (ctx, req) => {
    const received = [];
    for (let n = 0; n < req.times; n++) {
      try {
        received.push(await ctx.signal(req.name));
      } catch (e) {
        if (!(e instanceof TerminalError)) throw e;
        received.push(`rejected: ${e.message}`);
      }
    }
    return received;
  },

  resolve: async (ctx, req) => {
    ctx.invocation(req.id).signal(req.name).resolve(req.value);
    return "sent";
  },

  reject: async (ctx, req) => {
    ctx.invocation(req.id).signal(req.name).reject(req.reason);
    return "sent";
  },
});

// --- Drift: code that changes under a running invocation
const drift = service("Drift", {
  // While the flag is raised the first command is another one than before.
  act: async (ctx, req) => {
    if (raised(req.flag)) await ctx.sleep(1);
    else await ctx.run("first", () => count(req.effect));
    const { id, promise } = ctx.awakeable();
    await ctx.run("note", () => note(req.note, id));
    return promise;
  },
});

// --- Hidden: a private service
const hidden = service("Hidden", { secret: async (_ctx, _req) => "secret" }, { ingressPrivate: true });

export { restate };
// Of the runtimes that may call; none: everybody may.
export const identityKeys = process.env.CONFORMANCE_IDENTITY_KEY ? [process.env.CONFORMANCE_IDENTITY_KEY] : undefined;
export const services = [
  runs,
  timers,
  calls,
  counter,
  lazyCounter,
  flow,
  awakeables,
  combine,
  cancels,
  errors,
  payloads,
  signals,
  drift,
  hidden,
];
