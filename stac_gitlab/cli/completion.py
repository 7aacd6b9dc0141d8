"""``completion``: a script that completes commands, options and their values in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from stac_gitlab.cli.output import Output
from stac_gitlab.cli.parser import make_parser, subparsers

# A command is written as a path: /auth/login. Where nothing matches, the shell completes files.
_BASH = """_stac_gitlab() {{
    local at="" word words="" current="${{COMP_WORDS[COMP_CWORD]}}" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        word="${{COMP_WORDS[index]}}"
        case "$at/$word" in
            {paths}) at="$at/$word" ;;
        esac
    done
    COMPREPLY=()
    case "$at ${{COMP_WORDS[COMP_CWORD - 1]}}" in
{values}
        *)
            case "$at" in
{cases}
            esac
            case "$current" in
                -*) ;;
                *) words="${{words%%--*}}" ;;
            esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _stac_gitlab stac-gitlab
"""
_ZSH = """(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
autoload -Uz bashcompinit && bashcompinit
"""


def show_script(arguments: argparse.Namespace, _output: Output) -> int:
    """Print the script for a shell."""
    if arguments.shell == "fish":
        print("\n".join(_fish_lines()))
        return 0
    if arguments.shell == "zsh":
        print(_ZSH.format(), end="")
    commands = dict(_commands(make_parser()))
    values, cases = [], []
    for path, parser in commands.items():
        for action in parser._actions:
            for option in action.option_strings:
                if action.nargs != 0:
                    words = " ".join(map(str, action.choices or ()))
                    values.append(f'        "{path} {option}") words="{words}" ;;')
        names = [*subparsers(parser), *_positional_choices(parser)]
        options = [name for action in _shown(parser) for name in action.option_strings]
        words = " ".join([*names, *(name for name in options if name.startswith("--"))])
        cases.append(f'                "{path}") words="{words}" ;;')
    print(
        _BASH.format(
            paths="|".join(path for path in commands if path),
            values="\n".join(values),
            cases="\n".join(cases),
        ),
        end="",
    )
    return 0


def _commands(
    parser: argparse.ArgumentParser, path: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield path, parser
    for name, each in subparsers(parser).items():
        yield from _commands(each, f"{path}/{name}")


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _positional_choices(parser: argparse.ArgumentParser) -> list[str]:
    return [
        str(choice)
        for action in parser._actions
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
        for choice in action.choices or ()
    ]


def _fish_lines() -> Iterator[str]:
    for path, parser in _commands(make_parser()):
        names = path.split("/")[1:]
        seen = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in names)
        below = " ".join(subparsers(parser))
        not_yet = f"not __fish_seen_subcommand_from {below}"
        here = "; and ".join(filter(None, (seen, not_yet if below else "")))
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for each in action._choices_actions:
                    yield _fish(here, f"-f -a {each.dest}", each.help)
        for choice in _positional_choices(parser):
            yield _fish(here, f"-f -a {choice}", None)
        for action in _shown(parser):
            flags = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in action.option_strings
            )
            if flags:
                choices = " ".join(map(str, action.choices or ()))
                value = "" if action.nargs == 0 else f" -x -a '{choices}'" if choices else " -r"
                yield _fish(here, flags + value, action.help)


def _fish(condition: str, what: str, text: str | None) -> str:
    description = (text or "").replace("\\", "\\\\").replace("'", "\\'")
    described = f" -d '{description}'" if description else ""
    return f"complete -c stac-gitlab -n '{condition or 'true'}' {what}{described}"
