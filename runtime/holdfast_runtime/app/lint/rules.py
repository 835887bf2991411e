"""The rules of `holdfast lint`: their codes, and the names of the outside world that each one knows.

Rules: a code never changes its meaning; `docs/determinism.md` shows every code with an example that a test checks; a name that is
only sometimes harmful is left out, because a false alarm costs more trust than a missed one.
"""

from __future__ import annotations

from typing import Final

# code -> title. What repeats differently is 1xx, misuse of the context 2xx, what repeats visibly 3xx.
TITLES: Final = {
    "HF001": "suppression without a reason",
    "HF002": "file that cannot be read",
    "HF101": "clock",
    "HF102": "randomness",
    "HF103": "environment",
    "HF104": "network",
    "HF105": "files and processes",
    "HF106": "sleep that holds compute",
    "HF107": "asyncio's concurrency",
    "HF108": "threads and processes of one's own",
    "HF109": "changing global or closure",
    "HF110": "order of a set",
    "HF201": "durable operation not awaited",
    "HF202": "context inside a step",
    "HF203": "step that changes the handler's variables",
    "HF204": "step that was called instead of given",
    "HF205": "suspension swallowed",
    "HF301": "output repeated on replay",
}

_CLOCK: Final = (
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
    "time.perf_counter_ns",
    "time.localtime",
    "time.gmtime",
    "time.strftime",
    "time.ctime",
    "pendulum.now",
    "arrow.now",
    "arrow.utcnow",
    "django.utils.timezone.now",
)
_IDS: Final = ("uuid.uuid1", "uuid.uuid4", "uuid.uuid6", "uuid.uuid7", "uuid.getnode")
_SYSTEM: Final = (
    "os.getenv",
    "os.getpid",
    "os.getppid",
    "os.getcwd",
    "os.cpu_count",
    "os.uname",
    "os.getloadavg",
    "platform.node",
    "platform.uname",
    "socket.gethostname",
    "socket.getfqdn",
    "getpass.getuser",
)
_FILES: Final = (
    "open",
    "input",
    "io.open",
    "os.open",
    "os.listdir",
    "os.scandir",
    "os.walk",
    "os.stat",
    "os.remove",
    "os.unlink",
    "os.rename",
    "os.replace",
    "os.mkdir",
    "os.makedirs",
    "os.rmdir",
    "os.system",
    "os.popen",
    "os.path.exists",
    "os.path.isfile",
    "os.path.isdir",
    "os.path.getsize",
    "os.path.getmtime",
    "pathlib.Path.cwd",
    "pathlib.Path.home",
    "glob.glob",
    "glob.iglob",
)
_TASKS: Final = (
    "asyncio.gather",
    "asyncio.wait",
    "asyncio.wait_for",
    "asyncio.as_completed",
    "asyncio.create_task",
    "asyncio.ensure_future",
    "asyncio.shield",
    "asyncio.timeout",
    "asyncio.timeout_at",
    "asyncio.TaskGroup",
    "asyncio.to_thread",
    "asyncio.run",
    "asyncio.run_coroutine_threadsafe",
    "anyio.create_task_group",
    "anyio.move_on_after",
    "anyio.fail_after",
    "anyio.to_thread.run_sync",
)
_THREADS: Final = (
    "threading.Thread",
    "threading.Timer",
    "concurrent.futures.ThreadPoolExecutor",
    "concurrent.futures.ProcessPoolExecutor",
    "multiprocessing.Process",
    "multiprocessing.Pool",
)

# Exact name of what is called -> code.
CALLS: Final = {
    **dict.fromkeys(_CLOCK, "HF101"),
    **dict.fromkeys(_IDS, "HF102"),
    "os.urandom": "HF102",
    **dict.fromkeys(_SYSTEM, "HF103"),
    **dict.fromkeys(_FILES, "HF105"),
    **dict.fromkeys(("time.sleep", "asyncio.sleep", "anyio.sleep", "trio.sleep"), "HF106"),
    **dict.fromkeys(_TASKS, "HF107"),
    **dict.fromkeys(_THREADS, "HF108"),
    "print": "HF301",
    **{f"logging.{level}": "HF301" for level in ("debug", "info", "warning", "error", "exception", "critical", "log")},
}
# Whatever is called in these modules -> code; but not their classes, which only hold values or raise.
MODULES: Final = {
    "random": "HF102",
    "secrets": "HF102",
    "numpy.random": "HF102",
    **dict.fromkeys(
        (
            "requests",
            "httpx",
            "aiohttp",
            "urllib.request",
            "urllib3",
            "http.client",
            "socket",
            "smtplib",
            "ftplib",
            "boto3",
            "redis",
            "psycopg",
            "psycopg2",
            "asyncpg",
            "pymysql",
            "sqlite3",
            "pymongo",
        ),
        "HF104",
    ),
    **dict.fromkeys(("subprocess", "shutil", "tempfile"), "HF105"),
}
# Made without talking to anybody; what is called on them afterwards is what counts.
CLIENTS: Final = frozenset(
    {
        "boto3.client",
        "boto3.resource",
        "boto3.Session",
        "boto3.session.Session",
        "aioboto3.Session",
        "botocore.session.Session",
        "botocore.session.get_session",
        "httpx.Client",
        "httpx.AsyncClient",
        "requests.Session",
        "requests.session",
        "aiohttp.ClientSession",
        "urllib3.PoolManager",
        "http.client.HTTPConnection",
        "http.client.HTTPSConnection",
        "socket.socket",
        "smtplib.SMTP",
        "smtplib.SMTP_SSL",
        "redis.Redis",
        "redis.asyncio.Redis",
        "pymongo.MongoClient",
        "psycopg.connect",
        "psycopg2.connect",
        "sqlite3.connect",
        "asyncpg.connect",
        "asyncpg.create_pool",
        "pymysql.connect",
        "holdfast.Client",
        "holdfast.AsyncClient",
    }
)
# Neither asks anybody anything.
QUIET_METHODS: Final = frozenset({"close", "aclose", "get_paginator", "get_waiter", "can_paginate", "mount", "generate_presigned_url"})
QUIET_CALLS: Final = frozenset({"boto3.setup_default_session", "random.Random", "shutil.which", "httpx.codes"})

ENVIRONMENT: Final = frozenset({"os.environ", "os.environb", "sys.argv"})
PATHS: Final = frozenset({"pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath"})
PATH_METHODS: Final = frozenset(
    {
        *("open", "read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "is_dir", "iterdir", "glob", "rglob"),
        *("stat", "unlink", "mkdir", "rmdir", "rename", "replace", "touch"),
    }
)
LOGGERS: Final = frozenset(
    {"logging.getLogger", "aws_lambda_powertools.Logger", "aws_lambda_powertools.logging.Logger", "structlog.get_logger"}
)
LOG_METHODS: Final = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})

SERVICES: Final = frozenset({"holdfast.Service", "holdfast.VirtualObject", "holdfast.Workflow"})
SERVICES_AT: Final = frozenset(f"holdfast.service.{name}" for name in ("Service", "VirtualObject", "Workflow"))
_CONTEXTS: Final = ("Context", "ObjectContext", "SharedObjectContext", "WorkflowContext", "SharedWorkflowContext")
ASYNC_CONTEXTS: Final = frozenset(f"{module}.{name}" for module in ("holdfast", "holdfast.context") for name in _CONTEXTS)
PLAIN_CONTEXTS: Final = frozenset(f"holdfast.sync.{name}" for name in _CONTEXTS)

MUTABLE_MAKERS: Final = frozenset(
    {"list", "dict", "set", "bytearray", "collections.defaultdict", "collections.deque", "collections.Counter", "collections.OrderedDict"}
)
MUTATORS: Final = frozenset(
    {
        *("append", "extend", "insert", "remove", "pop", "popitem", "clear", "sort", "reverse", "add", "discard", "update"),
        *("setdefault", "appendleft", "popleft", "extendleft"),
    }
)
STEPS: Final = frozenset({"run", "map", "compensate"})  # their first argument is executed outside of the handler
FUTURES: Final = frozenset({"run", "sleep", "call", "now", "get", "keys", "gather", "select", "map", "signal", "attach", "awakeable"})
FUTURE_METHODS: Final = {"promise": frozenset({"peek", "resolve", "reject"}), "invocation": frozenset({"attach", "output"})}
HARMLESS_IN_STEPS: Final = frozenset({"key", "request", "logger"})  # facts of the invocation, no operations


def call_code(name: str) -> str | None:
    """The code for a call of this dotted name, None when it is harmless."""
    if name in CALLS:
        return CALLS[name]
    if name in CLIENTS or name in QUIET_CALLS:
        return "HF104" if name.rpartition(".")[2] in ("connect", "create_pool") else None
    module, _, last = name.rpartition(".")
    while module:
        if module in MODULES:
            # Classes hold values (httpx.Timeout), raise (requests.HTTPError) or draw from a seed (random.Random).
            return None if last[:1].isupper() and last != "SystemRandom" else MODULES[module]
        module = module.rpartition(".")[0]
    return None


def message(code: str, what: str, *, plain: bool) -> str:
    """What is wrong and the better way. plain: in a `def` handler, whose context needs no await."""
    wait = "" if plain else "await "
    texts = {
        "HF101": f"`{what}` gives another time in every attempt; use `{wait}ctx.now()`, which records it",
        "HF102": f"`{what}` gives another value in every attempt; use `ctx.random` or `ctx.uuid4()`, which repeat",
        "HF103": f"`{what}` may differ where the handler is continued; read it once at import into a constant, or `{wait}ctx.run(...)` it",
        "HF104": f"`{what}` talks to the outside again in every attempt; give it to `{wait}ctx.run(...)`, which records its result",
        "HF105": f"`{what}` touches files or processes again in every attempt; move it into a function for `{wait}ctx.run(...)`",
        "HF106": f"`{what}` holds compute and starts over after a crash; use `{wait}ctx.sleep(timedelta(...))`",
        "HF107": f"`{what}` runs in an order that replay cannot repeat; use `{wait}ctx.{_counterpart(what)}`",
        "HF108": f"`{what}` runs in an order that replay cannot repeat; use `{wait}ctx.map(function, items)`"
        f" or `{'ctx.start.run' if plain else 'ctx.run'}` with `ctx.gather`",
        "HF109": f"`{what}` changes while other invocations run, and is empty again after a crash; keep it in the handler, or in state",
        "HF110": f"iterating over {what} goes in another order in another process; iterate over `sorted(...)`",
        "HF202": f"`{what}` is used inside a step, where nothing is recorded; do it outside and pass the result in",
        "HF203": f"`{what}` is changed inside a step, which is not executed on replay; return the value from the step instead",
        "HF204": f"`{what}(...)` is executed before ctx.run can record it; write `ctx.run({what}, ...)` with the arguments behind it",
        "HF205": f"`{what}` also catches the end of an attempt that only waits; catch Exception or TerminalError, or raise it again",
        "HF301": f"`{what}` is repeated in every attempt; use `ctx.logger`, which is silent while replaying",
    }
    return texts[code]


def _counterpart(what: str) -> str:
    last = what.rpartition(".")[2]
    known = {
        "as_completed": "as_completed(futures)",
        "wait": "select(a=..., b=...)",
        "wait_for": "select(...)` or `ctx.timeout(timedelta(...))",
        "timeout": "select(...)` or `ctx.timeout(timedelta(...))",
        "timeout_at": "select(...)` or `ctx.timeout(timedelta(...))",
        "fail_after": "select(...)` or `ctx.timeout(timedelta(...))",
        "move_on_after": "select(...)` or `ctx.timeout(timedelta(...))",
        "to_thread": "run(function)",
        "run_sync": "run(function)",
    }
    return known.get(last, "gather(...)")
