"""`holdfast lint` finds what replay cannot repeat, says what to do instead, and is silent about everything else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast_runtime.app.errors import CliError
from holdfast_runtime.app.lint.rules import TITLES
from holdfast_runtime.app.lint.searching import Report, lint

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "determinism.md").read_text()
BLOCKS = re.findall(r"```python\n# (head|wrong|right)\n(.*?)```", DOCUMENT, re.DOTALL)
HEAD = next(text for kind, text in BLOCKS if kind == "head")
SECTIONS = {section[:5]: section for section in re.split(r"^### ", DOCUMENT, flags=re.MULTILINE)[1:]}
EXAMPLES = {
    (code, kind): text
    for code, section in SECTIONS.items()
    for kind, text in re.findall(r"```python\n# (wrong|right)\n(.*?)```", section, re.DOTALL)
}


def found(folder: Path, source: str, *more: tuple[str, str], target: str = ".") -> Report:
    (folder / "shop.py").write_text(source)
    for name, text in more:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return lint([target], folder)


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


@pytest.mark.parametrize(("code", "kind"), EXAMPLES)
def test_the_documented_example_is(code: str, kind: str, tmp_path: Path) -> None:
    report = found(tmp_path, HEAD + EXAMPLES[code, kind])
    assert set(codes(report)) == ({code} if kind == "wrong" else set()), report.findings
    assert len(report.handlers) == 1
    namespace: dict[str, object] = {"__name__": "example"}
    exec(compile(HEAD + EXAMPLES[code, kind], f"{code}-{kind}", "exec"), namespace)  # registers


def test_every_rule_is_documented_with_an_example_of_either_kind() -> None:
    assert set(SECTIONS) == set(TITLES)
    assert set(EXAMPLES) == {(code, kind) for code in TITLES if code != "HF002" for kind in ("wrong", "right")}
    for code, title in TITLES.items():
        assert SECTIONS[code].startswith(f"{code} {title}\n")


def handler(body: str, *, head: str = "", kind: str = "async def", context: str = "Context") -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{HEAD}\n{head}\n\n@orders.handler\n{kind} h(ctx: {context}, text: str) -> None:\n{lines}\n"


WRONG = {
    "an alias of a module": ("import datetime as dt\ndt.datetime.now()", "HF101"),
    "a name imported from a module": ("from time import time as clock\nclock()", "HF101"),
    "today": ("from datetime import date\ndate.today()", "HF101"),
    "secrets": ("import secrets\nsecrets.token_hex()", "HF102"),
    "the system's randomness": ("random.SystemRandom().random()", "HF102"),
    "getenv": ("os.getenv('X')", "HF103"),
    "environ imported by name": ("from os import environ\nenviron['X']", "HF103"),
    "a client made on the spot": ("boto3.client('s3').put_object(Bucket='b', Key='k')", "HF104"),
    "a client in a variable": ("table = boto3.resource('dynamodb').Table('t')\ntable.get_item(Key={})", "HF104"),
    "a client of a with block": ("async with httpx.AsyncClient() as http:\n    await http.get(text)", "HF104"),
    "urllib": ("from urllib.request import urlopen\nurlopen(text)", "HF104"),
    "sqlite": ("import sqlite3\nsqlite3.connect('x')", "HF104"),
    "our own client": ("import holdfast\nholdfast.Client('http://127.0.0.1').call('a/b')", "HF104"),
    "open": ("with open(text) as file:\n    pass", "HF105"),
    "a path in a variable": ("path = Path('/tmp') / text\npath.read_text()", "HF105"),
    "a subprocess": ("import subprocess\nsubprocess.run(['ls'])", "HF105"),
    "tasks": ("asyncio.create_task(ctx.run(charge, text))", "HF107"),
    "a task group": ("async with asyncio.TaskGroup() as group:\n    pass", "HF107"),
    "a thread": ("await asyncio.to_thread(charge, text)", "HF107"),
    "a pool": ("from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor()", "HF108"),
    "a set in a variable": ("names = {'a', 'b'}\nfor name in names:\n    ctx.send('a/b', name)", "HF110"),
    "a set in a comprehension": ("await ctx.gather(*[ctx.run(charge, card) for card in set(text)])", "HF110"),
    "a condition on a future": ("if ctx.call('a/b'):\n    pass", "HF201"),
    "a comparison of a future": ("return ctx.now() > datetime(2030, 1, 1)", "HF201"),
    "a text of a future": ("return f'{ctx.run(charge, text)}'", "HF201"),
    "a future that is returned": ("return ctx.run(charge, text)", "HF201"),
    "a future that nobody uses": ("later = ctx.run(charge, text)", "HF201"),
    "a sleep without await": ("ctx.sleep(timedelta(1))", "HF201"),
    "the context as an argument of a step": ("await ctx.run(charge, ctx)", "HF202"),
    "the context in a partial": ("await ctx.run(partial(charge, ctx))", "HF202"),
    "the context in a nested step": ("async def step() -> None:\n    await ctx.sleep(timedelta(1))\nawait ctx.run(step)", "HF202"),
    "a counter": ("count = 0\ndef step() -> None:\n    nonlocal count\n    count += 1\nawait ctx.run(step)", "HF203"),
    "suppress": ("from contextlib import suppress\nwith suppress(BaseException):\n    await ctx.sleep(timedelta(1))", "HF205"),
    "a bare except": ("try:\n    await ctx.sleep(timedelta(1))\nexcept:\n    pass", "HF205"),
    "logging": ("import logging\nlogging.info('x')", "HF301"),
    "in a lambda that is called here": ("sorted(text, key=lambda letter: random.random())", "HF102"),
    "in a nested function that is called here": ("def inner() -> float:\n    return time.time()\ninner()", "HF101"),
    "in an argument of a step": ("await ctx.run(charge, str(uuid.uuid4()))", "HF102"),
}


@pytest.mark.parametrize("name", WRONG)
def test_found(name: str, tmp_path: Path) -> None:
    body, code = WRONG[name]
    assert codes(found(tmp_path, handler(body))) == [code]


WRONG_AT_TOP = {
    "a client of the module": ("s3 = boto3.client('s3')", "s3.list_buckets()", "HF104"),
    "a logger of the module": ("import logging\nlog = logging.getLogger()", "log.info('x')", "HF301"),
    "a client given to a helper": ("def fetch(http: httpx.Client) -> None:\n    http.get('x')", "fetch(httpx.Client())", "HF104"),
    "a helper": ("def helper() -> float:\n    return deeper()\ndef deeper() -> float:\n    return random.random()", "helper()", "HF102"),
    "a method": ("class Till:\n    def open(self) -> float:\n        return time.time()", "till = Till()\ntill.open()", "HF101"),
    "a method of one of the module": ("class Till:\n    def go(self) -> None:\n        time.sleep(1)\ntill = Till()", "till.go()", "HF106"),
    "a method through self": (
        "class Till:\n    def a(self) -> float:\n        return self.b()\n    def b(self) -> float:\n        return time.time()",
        "Till().a\ntill = Till()\ntill.a()",
        "HF101",
    ),
    "a constructor": ("class Till:\n    def __init__(self) -> None:\n        self.at = time.time()", "Till()", "HF101"),
    "a default of a field": (
        "from dataclasses import dataclass, field\n@dataclass\nclass Order:\n    id: uuid.UUID = field(default_factory=uuid.uuid4)",
        "Order()",
        "HF102",
    ),
    "a helper that uses the context": ("async def helper(c: Context) -> None:\n    c.run(charge, 'x')", "await helper(ctx)", "HF201"),
    "a helper without annotations": ("async def helper(c):\n    c.run(charge, 'x')", "await helper(ctx)", "HF201"),
    "a global that is set": ("total = 0", "global total\ntotal = 1", "HF109"),
    "a global that a step changes and the handler reads": (
        "SEEN: list[str] = []\ndef step() -> None:\n    SEEN.append('x')",
        "await ctx.run(step)\nreturn len(SEEN)",
        "HF109",
    ),
}


@pytest.mark.parametrize("name", WRONG_AT_TOP)
def test_found_by_following(name: str, tmp_path: Path) -> None:
    head, body, code = WRONG_AT_TOP[name]
    assert set(codes(found(tmp_path, handler(body, head=head)))) == {code}


RIGHT = {
    "a function given to run": ("", "await ctx.run(charge, text)\nawait ctx.run(time.time)\nawait ctx.run(lambda: open(text).read())"),
    "a nested step": (
        "",
        "async def step() -> str:\n    async with httpx.AsyncClient() as http:\n        await http.get(text)\nawait ctx.run(step)",
    ),
    "a bound method given to run": (
        "s3 = boto3.client('s3')",
        "await ctx.run(s3.list_buckets)\nawait ctx.run(boto3.client('s3').list_buckets)",
    ),
    "a partial": ("", "step = partial(charge, text)\nawait ctx.run(step)"),
    "a factory of steps": (
        "from collections.abc import Callable\ndef make(x: str) -> Callable[[], str]:\n    return lambda: charge(x)",
        "await ctx.run(make(text))",
    ),
    "map and compensate": (
        "",
        "ctx.compensate(charge, text)\nawait ctx.map(charge, [text])\nawait ctx.map(lambda card: charge(card), [text])",
    ),
    "facts of the invocation in a step": (
        "",
        "await ctx.run(lambda: charge(ctx.request.invocation_id))\nawait ctx.run(charge, ctx.request.invocation_id)",
    ),
    "constants": ("PRICES = {'a': 1}\nLIMIT = int(os.environ.get('X', '1'))", "return PRICES[text] + LIMIT"),
    "a client that is made once": (
        "_s3 = None\ndef client():\n    global _s3\n    if _s3 is None:\n        _s3 = boto3.client('s3')\n    return _s3",
        "await ctx.run(client().list_buckets)",
    ),
    "a global that only steps change": ("SENT: list[str] = []\ndef step() -> None:\n    SENT.append('x')", "await ctx.run(step)"),
    "a variable named like a module": ("", "time = await ctx.now()\nreturn time.time()"),
    "a parameter named like a module": ("def helper(random: ctx_random) -> int:\n    return random.randint(1, 6)", "helper(ctx.random)"),
    "datetime from data": (
        "",
        "datetime.fromisoformat(text)\ndatetime(2030, 1, 1, tzinfo=UTC)\ntimedelta(1)\nuuid.UUID(text)\nPath('a') / 'b'",
    ),
    "a seeded generator": ("", "random.Random(text).random()"),
    "values of clients' modules": ("", "httpx.Timeout(3)\ntry:\n    await ctx.run(charge, text)\nexcept httpx.HTTPError:\n    pass"),
    "a set that decides nothing": (
        "",
        "for letter in set(text):\n    len(letter)\nfor letter in sorted(set(text)):\n    ctx.send('a/b', letter)",
    ),
    "operations that need no await": ("", "ctx.send('a/b', text)\nctx.resolve_awakeable('x')\nctx.invocation('x').cancel()"),
    "futures that are combined": ("", "later = ctx.run(charge, text)\nother = ctx.sleep(timedelta(1))\nawait ctx.select(a=later, b=other)"),
    "another handler that is called": (
        "@orders.handler\nasync def other(ctx: Context) -> None: ...",
        "await ctx.call(other)\nctx.send(other)",
    ),
    "cleaning up and raising again": ("", "try:\n    await ctx.sleep(timedelta(1))\nexcept BaseException:\n    text = ''\n    raise"),
    "what is not a handler": (
        "def free() -> float:\n    return time.time()\nasync def loop() -> None:\n    await asyncio.sleep(1)",
        "pass",
    ),
    "a helper that returns a future": ("def later(c: Context):\n    return c.run(charge, 'x')", "await later(ctx)"),
    "a step that keeps its own list": (
        "",
        "def step() -> list[str]:\n    lines = []\n    lines.append(charge(text))\n    return lines\nawait ctx.run(step)",
    ),
    "a text in a comment": ("", "text = 'time.time()'  # time.time() would differ"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_not_found(name: str, tmp_path: Path) -> None:
    head, body = RIGHT[name]
    report = found(tmp_path, handler(body, head=head))
    assert report.findings == ()
    assert report.handlers


def test_plain_handlers_wait_by_themselves(tmp_path: Path) -> None:
    fine = handler(
        "ctx.run(charge, text)\nctx.sleep(timedelta(1))\nif ctx.run(charge, text):\n    pass", kind="def", context="sync.Context"
    )
    assert codes(found(tmp_path, fine)) == []
    started = handler("ctx.start.run(charge, text)\ntime.sleep(1)", kind="def", context="sync.Context")
    report = found(tmp_path, started)
    assert codes(report) == ["HF201", "HF106"]
    assert "ask the future for its `.result()`" in report.findings[0].message
    assert "use `ctx.sleep(timedelta(...))`" in report.findings[1].message


def test_other_files_are_followed_and_say_who_reaches_them(tmp_path: Path) -> None:
    source = handler("await ctx.run(gateway.charge, text)\ngateway.price()", head="from shop_parts import gateway")
    report = found(
        tmp_path,
        source,
        ("shop_parts/__init__.py", "from .cards import charge as charge\n"),
        ("shop_parts/gateway.py", "from . import charge\nfrom .clock import stamp\ndef price():\n    return stamp()\n"),
        ("shop_parts/cards.py", "import time\ndef charge(text):\n    return time.time()\n"),
        ("shop_parts/clock.py", "from time import time\ndef stamp():\n    return time()\n"),
    )
    assert [(finding.path.name, finding.line, finding.column, finding.code) for finding in report.findings] == [
        ("clock.py", 3, 12, "HF101")
    ]
    assert report.findings[0].message.endswith("(in stamp, reached from orders/h)")
    assert report.findings[0].via == ("price", "stamp")


def test_a_source_layout_is_found(tmp_path: Path) -> None:
    (tmp_path / "src" / "shop").mkdir(parents=True)
    (tmp_path / "src" / "shop" / "__init__.py").write_text("")
    (tmp_path / "src" / "shop" / "clock.py").write_text("import time\ndef stamp():\n    return time.time()\n")
    (tmp_path / "src" / "shop" / "orders.py").write_text(handler("stamp()", head="from shop.clock import stamp"))
    for target in (".", "src", "src/shop/orders.py", "shop.orders", "shop.orders:orders"):
        assert codes(lint([target], tmp_path)) == ["HF101"], target


def test_services_can_be_chosen(tmp_path: Path) -> None:
    source = HEAD + (
        "@orders.handler\nasync def a(ctx: Context) -> None:\n    time.time()\n\n"
        "@carts.handler\nasync def b(ctx: ObjectContext) -> None:\n    random.random()\n\nboth = [orders, carts]\n"
    )
    assert codes(found(tmp_path, source, target="shop:orders")) == ["HF101"]
    assert codes(found(tmp_path, source, target="shop.py:carts")) == ["HF102"]
    assert codes(found(tmp_path, source, target="shop:both")) == ["HF101", "HF102"]
    assert codes(lint(["."], tmp_path, ignore=["HF101"])) == ["HF102"]


def test_services_are_known_wherever_they_are_made(tmp_path: Path) -> None:
    report = found(
        tmp_path,
        "from parts import orders\nimport time\n@orders.handler(name='renamed')\nasync def a(ctx):\n    time.time()\n",
        ("parts.py", "import holdfast\norders = holdfast.Service('the-orders')\n"),
    )
    assert codes(report) == ["HF101"]
    assert report.handlers == ("the-orders/renamed",)


def test_closures_are_shared_by_all_invocations(tmp_path: Path) -> None:
    source = (
        HEAD + "def build() -> None:\n    seen = []\n    @orders.handler\n    async def a(ctx: Context) -> None:\n        seen.append(1)\n"
    )
    assert codes(found(tmp_path, source)) == ["HF109"]


def test_a_comment_passes_over_its_line_when_it_says_why(tmp_path: Path) -> None:
    report = found(
        tmp_path,
        handler(
            "time.time()  # holdfast: ok only logged\nrandom.choice(\n    [1],\n)  # holdfast: ok a game\n'# holdfast: ok x'; time.time()"
        ),
    )
    assert codes(report) == ["HF101"]
    assert report.suppressed == 2


def test_circles_end(tmp_path: Path) -> None:
    report = found(
        tmp_path,
        handler("helper()\nlost()", head="from other import helper, lost"),
        ("other.py", "import shop\nfrom third import lost\ndef helper():\n    return helper()\nx = x\n"),
        ("third.py", "from other import lost\n"),
    )
    assert report.findings == ()


def test_a_broken_file_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    report = found(tmp_path, handler("time.time()"), ("broken.py", "def f(:\n"))
    assert codes(report) == ["HF002", "HF101"]
    assert (report.findings[0].path.name, report.findings[0].line, report.findings[0].column) == ("broken.py", 1, 7)


def test_our_own_samples_are_clean() -> None:
    report = lint(["handlers"], ROOT)
    assert report.findings == ()
    assert len(report.handlers) == 12


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nowhere", "module 'nowhere' is not found"),
        ("nowhere.py", "nowhere.py does not exist"),
        ("shop:order", "did you mean 'orders'"),
        ("empty", "holds no Python files"),
        ("not a module", "expected MODULE"),
    ],
)
def test_a_target_that_is_not_there(target: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CliError, match=text):
        found(tmp_path, handler("pass"), target=target)


def test_an_unknown_rule_is_told(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="there is no rule HF999"):
        lint(["."], tmp_path, ignore=["HF999"])


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast_runtime.app.cli", "lint", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "sdk"), str(ROOT / "runtime")]), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_prints_as_linters_do(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(handler("time.time()"))
    told = command(tmp_path)
    line = handler("time.time()").splitlines().index("    time.time()") + 1
    assert (
        told.stdout
        == f"shop.py:{line}:5: HF101 `time.time()` gives another time in every attempt; use `await ctx.now()`, which records it\n"
    )
    assert told.stderr == "Found 1 problem: 1 handler in 1 file.\n"
    assert told.returncode == 1

    document = json.loads(command(tmp_path, "--json").stdout)
    assert [(item["code"], item["location"], item["handler"]) for item in document] == [("HF101", {"row": line, "column": 5}, "orders/h")]

    clean = command(tmp_path, "--ignore", "HF101", "shop")
    assert (clean.returncode, clean.stdout, clean.stderr) == (0, "", "All checks passed: 1 handler in 1 file.\n")
    assert command(tmp_path, "nowhere").returncode == 1
    assert command(tmp_path, "--nonsense").returncode == 2
