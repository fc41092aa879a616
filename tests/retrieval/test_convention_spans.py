"""Which parts of a line carry a convention, in several languages."""

from __future__ import annotations

import pytest

from inhouse_retrieval.convention_spans import convention_spans


@pytest.mark.parametrize(
    ("path", "text", "carrying"),
    [
        (
            "a.py",
            "from a.b import c  # größe\nx: List[int] = foo.bar(k='ü')\nfor item in x: raise E(item.name)\n",
            "import:a import:b import:c type:List type:int callee:bar property:k literal:ü callee:E property:name",
        ),
        (
            "a.tsx",
            "import {a} from '@/x';\nconst q: Foo = await this.svc.get({k: 1, z}, `t${u}`);\n<Box size='x' />;\n",
            "import:a import:@/x type:Foo property:svc callee:get property:k literal:1 property:z literal:t "
            "property:size literal:x",
        ),
        (
            "a.go",
            'package p\nimport "fmt"\nfunc f(a *T) error { return fmt.Errorf("x", a.b) }\n',
            "import:fmt type:T type:error callee:Errorf literal:x property:b",
        ),
        (
            "a.rs",
            'use a::b;\nfn f(x: &Foo) -> R { let y = S { k: 1 }; a::g(x.h); println!("s"); y }\n',
            "import:a import:b type:Foo type:R type:S property:k literal:1 callee:g property:h callee:println "
            "literal:s",
        ),
        (
            "A.java",
            'import a.C;\nclass X { Foo f(Bar b) { obj.call(b.c, 1); throw new E("x"); } }\n',
            "import:a import:C type:Foo type:Bar callee:call property:c literal:1 callee:E literal:x",
        ),
        ("a.rb", "raise E, 'x'\na.b(k: :s)\n", "callee:raise type:E literal:x callee:b property:k literal::s"),
    ],
)
def test_imports_callees_types_properties_and_literals(path: str, text: str, carrying: str) -> None:
    spans = convention_spans(path, text)
    assert spans is not None
    assert " ".join(f"{span.kind}:{text[span.start : span.end]}" for span in spans) == carrying


def test_without_a_grammar_there_is_nothing_to_say_and_deep_code_is_read() -> None:
    assert convention_spans("a.unknown", "import x") is None
    deep = convention_spans("a.py", "x = " + "[" * 5_000 + "1" + "]" * 5_000)
    assert deep is not None and [span.kind for span in deep] in ([], ["literal"])
