"""Expressions: every way out of a filtered ``eval`` that has been told of, and a few of our own."""

from __future__ import annotations

from tests.security.case import Case, train

SLOT = "train/handlers/4/args/output_transform"
RULES = ("expression", "limit", "json", "reference")

TEXTS: dict[str, tuple[str, str]] = {
    # Modules and what hangs on them.
    "monai-os": ("a module reached through an allowed one", "#monai.os.system('touch MARKER')"),
    "monai-utils": (
        "a helper that runs commands",
        "#monai.utils.misc.run_cmd(['touch', 'MARKER'])",
    ),
    "torch-hub": ("code from the internet", "#torch.hub.load('evil/repo', 'model')"),
    "torch-load": ("a pickle", "#torch.load('SECRET', weights_only=False)"),
    "torch-ops": ("a native library", "#torch.ops.load_library('MARKER.so')"),
    "torch-jit": ("TorchScript", "#torch.jit.load('MARKER.ts')"),
    "numpy-load": ("a pickle in an array", "#numpy.load('SECRET', allow_pickle=True)"),
    "np-memmap": ("any file of the site", "#np.memmap('SECRET')"),
    "numpy-fromfile": ("any file of the site", "#numpy.fromfile('SECRET')"),
    "logging-os": ("an alias inside a harmless package", "#logging.os.system('touch MARKER')"),
    "bundle-run": ("MONAI's own config language", "#monai.bundle.run('x', config_file='MARKER')"),
    "from-engine-globals": (
        "the globals of the one function that must be allowed",
        "#monai.handlers.from_engine(['loss']).__globals__['os'].system('touch MARKER')",
    ),
    "from-engine-attribute": ("a module beside it", "#monai.handlers.utils.os.system('id')"),
    "from-engine-alias": (
        "another function of the package",
        "#monai.handlers.write_metrics_reports",
    ),
    "dtype-walk": ("attributes of an allowed constant", "#torch.float32.__class__.__base__"),
    "dtype-call": ("a call of an allowed constant", "#torch.float32('x')"),
    "dtype-reduce": ("reduce of an allowed constant", "#torch.float32.__reduce__()"),
    # Names of Python.
    "import": ("a builtin", "#__import__('os').system('touch MARKER')"),
    "eval": ("a builtin", "#eval('1')"),
    "exec": ("a builtin", "#exec('import os')"),
    "compile": ("a builtin", "#compile('1', 'x', 'eval')"),
    "open": ("a builtin", "#open('SECRET').read()"),
    "getattr": ("a builtin", "#getattr(@model, 'load_state_dict')"),
    "globals": ("a builtin", "#globals()"),
    "breakpoint": ("a builtin that waits", "#breakpoint()"),
    "input": ("a builtin that waits", "#input()"),
    "exit": ("a builtin that ends the process", "#exit()"),
    "type": ("a class of one's own", "#type('X', (), {})"),
    "print-file": ("print into a file", "#print('x', file=open('MARKER', 'w'))"),
    "print-end": ("print with a keyword", "#print('x', end='')"),
    "print-attribute": ("an attribute of print", "#print.__self__"),
    # Walks from a value.
    "subclasses": ("the list of all classes", "#().__class__.__bases__[0].__subclasses__()"),
    "string-format": ("a walk inside format", "#'{0.__class__}'.format(@model)"),
    "string-format-map": ("the same with a mapping", "#'{x.__init__}'.format_map({'x': @model})"),
    "percent": ("a width bomb by the old operator", "#'%999999999d' % 1"),
    "str-join": ("a method of a string", "#''.join(['a', 'b'])"),
    "lambda-class": ("a walk from the argument", "lambda x: x.__class__.__init__.__globals__"),
    "lambda-engine": ("another attribute of an engine", "lambda engine: engine.network"),
    "lambda-state": ("another attribute of its state", "lambda engine: engine.state.dataloader"),
    "lambda-loader": ("the data behind it", "lambda engine: engine.data_loader.dataset.data"),
    "lambda-method": ("a method of the argument", "lambda x: x.save('MARKER')"),
    "lambda-call": ("a call of the argument", "lambda x: x('touch MARKER')"),
    "lambda-item-call": ("a call of what the argument holds", "lambda x: x['f']('MARKER')"),
    "lambda-setattr": ("a setter", "lambda x: setattr(x, 'terminate', 1)"),
    "lambda-default": ("a default that is evaluated", "lambda x, y=print('x'): y"),
    "lambda-star": ("an unpacking", "lambda *x: x"),
    "lambda-none": ("no parameter", "lambda: 0"),
    "lambda-nested": ("a lambda inside a lambda", "lambda x: (lambda y: y)(x)"),
    "lambda-shadow": ("a parameter that hides a name", "lambda print: print('x')"),
    "lambda-reference": ("a parameter with the placeholder's name", "lambda reference__model: 0"),
    "lambda-chain": ("two lambdas", "lambda x: x; lambda y: y"),
    "fstring-attribute": ("an attribute in an f-string", "lambda x: f'{x.__class__}'"),
    "fstring-call": ("a call in an f-string", "#f'{open(chr(47))}'"),
    "fstring-width": ("a width bomb", "lambda x: f'{x:999999999}'"),
    "fstring-nested-width": ("a width from a value", "lambda x: f'{x:{x}}'"),
    "fstring-precision": ("a precision bomb", "lambda x: f'{x:.999999f}'"),
    "fstring-conversion": ("a conversion", "lambda x: f'{x!r}'"),
    "fstring-debug": ("the debugging form", "lambda x: f'{x=}'"),
    "fstring-implicit": ("an f-string beside a string", "lambda x: 'a' f'{x.__class__}'"),
    "reference-attribute": ("an attribute of a reference", "#@model.__class__"),
    "reference-method": ("another method of a reference", "#@model.apply(print)"),
    "reference-state": ("live weights under their names", "#@model.state_dict()"),
    "reference-arguments": ("a method with an argument", "#@model.parameters(recurse=False)"),
    "reference-chain": ("a chain of attributes", "#@model.conv.parameters()"),
    "reference-subscript": ("an item of a reference", "#@conf['secret']"),
    "reference-glued": ("a name grown together with a reference", "#x@model"),
    "matmul": ("matrix product, which '@' is in Python", "#[1] @ [2]"),
    # Constructs.
    "walrus": ("an assignment", "#(x := 1)"),
    "comprehension": ("a comprehension", "#[x for x in ().__class__.__base__.__subclasses__()]"),
    "generator": ("a generator", "#(i for i in [1])"),
    "dict-comprehension": ("a comprehension", "#{i: i for i in [1]}"),
    "starred": ("an unpacking", "#[*[1, 2]]"),
    "dict-unpack": ("an unpacking", "#{**{'a': 1}}"),
    "slice": ("a slice", "lambda x: x[0:10]"),
    "computed-key": ("a key that is computed", "lambda x: x[x['k']]"),
    "fstring-key": ("a key that is computed", "lambda x: x[f'{x}']"),
    "set": ("a set", "#{1, 2}"),
    "await": ("await", "#await x"),
    "yield": ("yield", "lambda x: (yield x)"),
    "statement": ("a statement", "#import os"),
    "two-statements": ("two statements", "#1\nimport os"),
    "semicolon": ("two statements", "#1; import os"),
    "comment": ("a comment that hides the rest", "#1 # @model"),
    "continuation": ("a line that goes on", "#1 \\\n+ 1"),
    "empty": ("nothing at all", "#"),
    # A parser may treat this comment of a job otherwise; in parts, it silences no checker of ours.
    "type-ignore": ("a type comment", "#1 # type: " + "ignore"),
    # Resources.
    "power": ("a number that fills the memory", "#9**9**9"),
    "shift": ("the same by a shift", "#1 << 99999999999"),
    "string-repeat": ("a string that fills the memory", "#'a' * 9999999999"),
    "list-repeat": ("a list that fills the memory", "#[0] * 9999999999"),
    "tuple-repeat": ("the same, nested", "#((1,) * 999) * 999"),
    "long-integer": ("a number of many digits", "#" + "9" * 900),
    "hex-integer": ("the same in another base", "#0x" + "f" * 900),
    "huge-exponent": ("infinity", "#1e999999"),
    "infinity-difference": ("not a number by arithmetic", "#1e999 - 1e999"),
    "complex": ("a complex number", "#1j"),
    "bytes": ("bytes", "#b'x'"),
    "ellipsis": ("an ellipsis", "#..."),
    "deep-brackets": ("a stack overflow of the parser", "#" + "(" * 450 + ")" * 450),
    "deep-lists": ("deep nesting", "#" + "[" * 100 + "]" * 100),
    "deep-unary": ("a chain of signs", "#" + "-" * 900 + "1"),
    "deep-not": ("a chain of negations", "#" + "not " * 200 + "1"),
    "many-nodes": ("many parts", "#[" + "1," * 480 + "]"),
    "long-text": ("a text beyond the limit", "#'" + "a" * 3000 + "'"),
    "chain-compare": ("a chain of comparisons", "#1 < 2 < 3"),
    "in": ("a search", "lambda x: 'a' in x"),
    "is": ("identity", "lambda x: x is None"),
    # Characters.
    "homoglyph": ("a Cyrillic letter in a name", "#m\u043enai.handlers.from_engine(['loss'])"),
    "nfkc": ("letters that Python makes plain", "#\uff45\uff56\uff41\uff4c('1')"),
    "nfkc-underscore": ("an underscore that Python makes plain", "lambda x: x._\uff3fclass__"),
    "nul": ("a NUL", "#1\0"),
    "newline": ("a line break in a string", "#'a\nb'"),
    "carriage-return": ("a carriage return", "#1\r+1"),
    "bidi": ("text that runs the other way", "#'\u202e'"),
    "no-break-space": ("a blank that is none", "#\u00a01"),
    "form-feed": ("a form feed", "#\x0c1"),
    "escape-hex": ("an escape that spells a dunder", r"lambda x: x['\x5f\x5fclass\x5f\x5f']"),
    "escape-octal": ("the same in octal", r"lambda x: x['\137\137class']"),
    "escape-name": ("the same by name", r"lambda x: x['\N{LOW LINE}\N{LOW LINE}class']"),
    "raw-string": ("a raw string", r"lambda x: x[r'\x5f']"),
    "triple-quote": ("a triple quote", "#'''a'''"),
    "dunder-key": ("a dunder as a key", "lambda x: x['__class__']"),
    "dunder-joined": ("a dunder of two strings", "lambda x: x['_' '_class_' '_']"),
    "upper-case": ("another spelling of lambda", "#Lambda x: x"),
    "leading-blank": ("a blank before it all", " #__import__('os').system('touch MARKER')"),
    "leading-newline": ("a line break before it all", "\n#__import__('os').system('id')"),
    "lambda-tab": ("a tab behind lambda", "lambda\tx: open('MARKER', 'w')"),
    "lambda-paren": ("a bracket before it all", "#(lambda x: open('MARKER', 'w'))(1)"),
    "surrogate": ("half a character", "#'\ud800'"),
}

NO_OTHER_SLOTS = {
    "transform-argument": (
        "in an argument of a transform",
        {"train/pre_transforms/0/args/image_only": "#__import__('os').system('touch MARKER')"},
    ),
    "nested-list": (
        "deep inside an argument",
        {"train/model/args/channels": [4, [8, {"x": "#open('MARKER', 'w')"}]]},
    ),
    "section-entry": ("in place of a component", {"train/loss": "#open('MARKER', 'w')"}),
    "handler-entry": ("in place of a handler", {"train/handlers/-": "#open('MARKER', 'w')"}),
    "engine-argument": (
        "in an argument of the engine",
        {"train/trainer/args/train_handlers": "#[print, @model.__class__]"},
    ),
    "optimizer-params": (
        "in the place that must take one",
        {"train/optimizer/args/params": "#[p for p in @model.parameters()]"},
    ),
    "dtype-argument": (
        "where a dtype stands",
        {
            "train/pre_transforms/-": {
                "name": "CastToTyped",
                "args": {"keys": "image", "dtype": "#torch.serialization.load('MARKER')"},
            }
        },
    ),
}

HOSTILE: tuple[Case, ...] = (
    *(train(id_, "expression", tries, RULES, {SLOT: text}) for id_, (tries, text) in TEXTS.items()),
    *(
        train(id_, "expression", tries, (*RULES, "component"), changes)
        for id_, (tries, changes) in NO_OTHER_SLOTS.items()
    ),
)
