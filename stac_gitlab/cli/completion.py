"""``completion``: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse

from stac_gitlab.cli.options import Commands

_BASH = """_stac_gitlab() {{
    local words="{commands}"
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _stac_gitlab stac-gitlab
"""
_ZSH = "#compdef stac-gitlab\nautoload -U +X bashcompinit && bashcompinit\n"


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("completion", help="print a completion script for a shell")
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.set_defaults(run=lambda arguments, _output: _run(arguments, commands.choices))


def _run(arguments: argparse.Namespace, parsers: dict[str, argparse.ArgumentParser]) -> int:
    options = {name: _words_of(parser) for name, parser in parsers.items()}
    if arguments.shell == "fish":
        print("complete -c stac-gitlab -f -n __fish_use_subcommand -a", f'"{" ".join(options)}"')
        for name, words in options.items():
            seen = f'-n "__fish_seen_subcommand_from {name}"'
            for word in words:
                kind = f"-l {word[2:]}" if word.startswith("--") else f'-a "{word}"'
                print(f"complete -c stac-gitlab {seen} {kind}")
        return 0
    cases = "\n".join(f'        {n}) words="{" ".join(w)}" ;;' for n, w in options.items())
    script = _BASH.format(commands=" ".join(options), cases=cases)
    print(f"{_ZSH if arguments.shell == 'zsh' else ''}{script}", end="")
    return 0


def _words_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the long options, and the choices of the arguments, of a command."""
    words: list[str] = []
    for action in parser._actions:
        if action.help != argparse.SUPPRESS:
            words += [option for option in action.option_strings if option.startswith("--")]
            words += [] if action.option_strings else [str(each) for each in action.choices or ()]
    return words
