"""docs/configuration.md, made from the declaration: `python -m holdfast_runtime.app.config.docs > docs/configuration.md`."""

from __future__ import annotations

from holdfast_runtime.app.config.settings import GROUPS, OTHER_VARIABLES, SETTINGS, Setting

_HEAD = """\
# Configuration

Every setting has one name and three spellings: `flush-interval` in a TOML file, `HOLDFAST_FLUSH_INTERVAL` in the environment,
`--flush-interval` on the command line of `dev`, `serve` and `config`.

    holdfast config              # what holds, and where each value comes from
    holdfast config --toml       # the same as a file, defaults behind a #
    holdfast config --json

A stronger source wins: defaults, then the file, then the environment, then the command line. The file is the one that `--config`
names, else the one that `HOLDFAST_CONFIG` names, else `holdfast.toml` in the working directory if there is one; `holdfast config` and
the first line of the log say which. Relative paths start in the working directory, also those in a file.

    # holdfast.toml
    store = "/var/lib/holdfast/store.sqlite"
    ingress = "0.0.0.0:8080"
    flush-interval = "2m"
    ingress-request-size-limit = "8 MiB"
    max-journal-retention = "7d"

- **Durations**: `10s`, `1h 30m`, `250ms`, `2d`, `PT10S`, `01:30:00`; no bare numbers but `0`, no months and years.
- **Sizes**: `32 MiB`, `1.5 GiB`, `10 MB` (millions), or a number of bytes.
- **No value**: the word in the table (`unlimited`, `none`, `derived`) takes back what a weaker source says. A variable that is set to
  nothing is not set.
- **Mistakes** are all told at once, with place, what was expected and what was found, and nothing starts: a value of the wrong type or out
  of range, a key that does not exist, a variable `HOLDFAST_...` that does not exist (with the nearest name). Variables that Kubernetes puts
  beside a service called `holdfast...` (`HOLDFAST_SERVICE_HOST`, `HOLDFAST_PORT_8080_TCP`, ...) are ignored.
- **Variables of the official server** are understood where the table names them; the one of Holdfast wins.
"""

_TAIL = """
## Variables that are no settings

{others}
| `NO_COLOR`, `FORCE_COLOR` | no colours, colours also in a pipe |
| `AWS_...` | credentials, profile, region of Lambda calls, as for every AWS tool; `AWS_ENDPOINT_URL_LAMBDA`: another address of Lambda |

Retries, timeouts and retentions of one service or handler are set in its code, or with `PATCH /services/{{name}}` of the admin API.
"""


def document() -> str:
    sections = []
    for group, remark in GROUPS.items():
        rows = [_row(setting) for setting in SETTINGS if setting.group == group]
        head = ["| setting | default | may be | meaning | also read from |", "| --- | --- | --- | --- | --- |"]
        sections.append("\n".join([f"\n## {group}\n", *([f"{remark}\n"] if remark else []), *head, *rows]))
    others = "\n".join(
        ["| variable | meaning |", "| --- | --- |", *(f"| `{name}` | {meaning} |" for name, meaning in OTHER_VARIABLES.items())]
    )
    return _HEAD + "\n".join(sections) + "\n" + _TAIL.format(others=others)


def _row(setting: Setting) -> str:
    also = ", ".join(f"`{variable}`" for variable in setting.variables[1:])
    default = ".holdfast/store.sqlite`, `dev`: `.holdfast/dev.sqlite" if setting.name == "store" else setting.shown(setting.default)
    may_be = setting.expected.split(", such as")[0].replace("'", "`")
    return f"| `{setting.name}` | `{default}` | {may_be} | {setting.meaning} | {also} |".replace("|  |", "| |")


if __name__ == "__main__":
    print(document(), end="")
