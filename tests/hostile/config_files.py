"""Random config files by seed: YAML that is broken, huge, cyclic, or tries to run code."""

from __future__ import annotations

import random

from command_lines import Case, drawn_option

from runner.door.options import Conf

GLOBAL = "# @package _global_\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
RECIPES = {
    "bomb": GLOBAL + BOMB,
    "bomb of keys": GLOBAL + BOMB.replace("[", "{k: [").replace("]", "]}"),
    "merge": GLOBAL + "optim: &x {lr: 1}\nmodel: {<<: *x}\n",
    "merge alone": GLOBAL + "optim: {<<: {lr: 1}}\n",
    "tags": GLOBAL + "note: !!python/object/apply:os.system ['x']\n",
    "tag of a string": GLOBAL + "seed: !!str 5\n",
    "binary": GLOBAL + "note: !!binary aGVsbG8=\n",
    "set": GLOBAL + "note: !!set {a, b}\n",
    "complex key": GLOBAL + "? [a, b]\n: 1\n",
    "null key": GLOBAL + "~: 1\n",
    "number key": GLOBAL + "1: 1\n",
    "true key": GLOBAL + "on: 1\n",
    "float key": GLOBAL + "1.5: 1\n",
    "date": GLOBAL + "seed: 2020-01-01\n",
    "sexagesimal": GLOBAL + "seed: 1:30\n",
    "octal": GLOBAL + "seed: 012\n",
    "big hex": GLOBAL + f"seed: 0x{'F' * 20_000}\n",
    "big hex in a list": GLOBAL + f"plugins: [0x{'F' * 20_000}]\n",
    "big hex knob": GLOBAL + f"optim: {{lr: 0x{'F' * 20_000}}}\n",
    "big hex note": GLOBAL + f"note: 0x{'F' * 20_000}\n",
    "big number": GLOBAL + f"seed: {'9' * 5000}\n",
    "big base 60": GLOBAL + f"seed: {':'.join(['59'] * 5000)}\n",
    "infinity": GLOBAL + "epochs: .inf\n",
    "not a number": GLOBAL + "epochs: .nan\n",
    "NUL": GLOBAL + "note: a\0b\n",
    "NUL escaped": GLOBAL + 'note: "a\\0b"\n',
    "surrogate escaped": GLOBAL + 'note: "\\ud800"\n',
    "emoji key": GLOBAL + "🎉: 1\n",
    "right to left": GLOBAL + "note: \u202edetrever\n",
    "controls": GLOBAL + "note: \x1b[31mred\n",
    "two documents": GLOBAL + "seed: 1\n---\nseed: 2\n",
    "directive": "%YAML 1.1\n---\n" + GLOBAL + "seed: 1\n",
    "tabs": GLOBAL + "optim:\n\tlr: 1\n",
    "carriage returns": (GLOBAL + "seed: 1\nlog_every: x\n").replace("\n", "\r"),
    "key twice": GLOBAL + "seed: 1\nseed: 2\n",
    "key of 100 kB": GLOBAL + f"{'k' * 100_000}: 1\n",
    "value of 1 MB": GLOBAL + f"note: {'x' * 999_900}\n",
    "value over 1 MB": GLOBAL + f"note: {'x' * 1_100_000}\n",
    "200,000 entries": GLOBAL + f"plugins: [{','.join(['a'] * 200_000)}]\n",
    "20,000 keys": GLOBAL + "".join(f"k{i}: 1\n" for i in range(20_000)),
    "deep list": GLOBAL + f"note: {'[' * 5000}{']' * 5000}\n",
    "deep map": GLOBAL + f"note: {'{a: ' * 5000}1{'}' * 5000}\n",
    "deep open": GLOBAL + "note: " + "[" * 100_000,
    "deep indents": GLOBAL + "".join(f"{' ' * i}a:\n" for i in range(500)),
    "quotes": GLOBAL + "note: 'open\n",
    "interpolation to itself": GLOBAL + "note: ${note}\n",
    "interpolations in a circle": GLOBAL + "optim: {lr: '${data.batch_size}'}\ndata: {batch_size: '${optim.lr}'}\n",
    "interpolation bomb": GLOBAL + "note: '" + "${name}" * 10_000 + "'\n",
    "interpolation that doubles": GLOBAL + "note: ${outputs}${outputs}\noutputs: ${name}${name}\nname: ${note}\n",
    "interpolation of 20 levels": GLOBAL
    + "optim:\n  rules:\n    a0: xxxxxxxxxx\n"
    + "".join(f"    a{i + 1}: ${{optim.rules.a{i}}}${{optim.rules.a{i}}}\n" for i in range(40)),
    "environment": GLOBAL + "note: ${oc.env:HOME}\n",
    "environment in a folder": GLOBAL + "outputs: ${oc.env:HOME}\n",
    "decode": GLOBAL + "plugins: ${oc.decode:'[os]'}\n",
    "create": GLOBAL + "optim: ${oc.create:{_target_: os.system}}\n",
    "defaults of itself": GLOBAL + "defaults: [mine]\n",
    "defaults of a path": GLOBAL + "defaults: [../../etc/passwd]\n",
    "defaults of everything": GLOBAL + "defaults: [{override /model: '*'}]\n",
    "defaults as a map": GLOBAL + "defaults: {optim: sgd}\n",
    "defaults as a number": GLOBAL + "defaults: 3\n",
    "defaults of numbers": GLOBAL + "defaults: [1, null, [a], {}]\n",
    "defaults with two keys": GLOBAL + "defaults: [{a: b, c: d}]\n",
    "defaults with an interpolation": GLOBAL + "defaults: [{override /model: '${note}'}]\n",
    "defaults by interpolation": GLOBAL + "defaults: ${plugins}\n",
    "defaults optional": GLOBAL + "defaults: [{optional optim: nope}]\n",
    "defaults twice": GLOBAL + "defaults: [{override /model: mlp}, {override /model: cnn}]\n",
    "defaults of 10,000": GLOBAL + "defaults: [" + ",".join(["{override /model: mlp}"] * 10_000) + "]\n",
    "hydra as a word": GLOBAL + "hydra: x\n",
    "hydra as a list": GLOBAL + "hydra: [a]\n",
    "hydra callbacks": GLOBAL + "hydra: {callbacks: {x: {_target_: os.mkdir, path: canary}}}\n",
    "hydra logging": GLOBAL + "hydra: {job_logging: {formatters: {x: {(): os.mkdir, path: canary}}}}\n",
    "hydra launcher": GLOBAL + "hydra: {launcher: {_target_: os.mkdir}}\n",
    "hydra sweeper": GLOBAL + "hydra: {mode: MULTIRUN, sweeper: {params: {seed: 'range(0,1e9)'}}}\n",
    "hydra sweeper params": GLOBAL + "hydra: {mode: MULTIRUN, sweeper: {params: {plugins: '[os]'}}}\n",
    "hydra sweeper list": GLOBAL + "hydra: {mode: MULTIRUN, sweeper: {params: [seed=1]}}\n",
    "hydra sweeper none": GLOBAL + "hydra: {mode: MULTIRUN, sweeper: {params: null}}\nlog_every: 0\n",
    "hydra mode": GLOBAL + "hydra: {mode: 7}\n",
    "hydra searchpath": GLOBAL + "hydra: {searchpath: [file:///]}\n",
    "no header": "seed: 1\n",
    "another header": "# @package hydra.callbacks\nx: {_target_: os.mkdir}\n",
    "two headers": GLOBAL + "# @package optim\nseed: 1\n",
    "empty": "",
    "only the header": GLOBAL,
    "a list": GLOBAL + "- 1\n",
    "a word": GLOBAL + "word\n",
    "target": GLOBAL + "optim: {_target_: os.system}\n",
    "target, deep": GLOBAL + "optim: {rules: {a: [{b: {_target_: os.system}}]}}\n",
    "partial": GLOBAL + "_partial_: true\n",
    "plugins": GLOBAL + "plugins: [os]\n",
    "group as a word": GLOBAL + "optim: adam\n",
    "group as a list": GLOBAL + "optim: [1]\n",
    "group as nothing": GLOBAL + "optim: null\n",
    "many as a list": GLOBAL + "augment: [crop]\n",
    "many as nothing": GLOBAL + "augment: null\n",
    "knobs as a list": GLOBAL + "augment: {crop: [1]}\n",
    "a name": GLOBAL + "optim: {name: os.system}\n",
    "a name as a list": GLOBAL + "optim: {name: [sgd]}\n",
    "missing": GLOBAL + "seed: ???\n",
    "missing knob": GLOBAL + "optim: {lr: '???'}\n",
    "recipe in a recipe": GLOBAL + "recipe: {a: 1}\n",
    "recipe as a word": GLOBAL + "recipe: digits\n",
}


def listed_recipe(conf: Conf, rng: random.Random) -> Case:
    """A recipe of the list above."""
    name = rng.choice(sorted(RECIPES))
    return case_of_recipe(f"recipe: {name}", RECIPES[name].encode("utf-8", "surrogatepass"))


def case_of_recipe(kind: str, data: bytes) -> Case:
    """Return the case of a recipe file."""
    return Case(kind, ("recipe=mine", "--config-dir", "{folder}"), files={"recipe/mine.yaml": data})


def damaged_file(conf: Conf, rng: random.Random) -> Case:
    """A shipped file with bytes changed, taken out, doubled or shuffled, as a user's own option."""
    group, name = drawn_option(conf, rng)
    data = bytearray(conf.files[group][name].read_bytes())
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(data) + 1)
        edit = rng.randrange(4)
        if edit == 0:
            data[place:place] = bytes([rng.randrange(256)])
        elif edit == 1:
            del data[place : place + rng.randint(1, 9)]
        elif edit == 2:
            data[place:place] = data[place : place + rng.randint(1, 40)]
        else:
            data[place:place] = rng.choice(
                [b"\n", b"\t", b": ", b"- ", b"&a ", b"*a", b"!!str ", b"{", b"]", b"\xff", b"\0", b"${"]
            )
    words = ("--config-dir", "{folder}", f"{group}=[mine]" if conf.several(group) else f"{group}=mine")
    return Case(f"mutated {group}", words, files={f"{group}/mine.yaml": bytes(data)})
