"""Encrypted arithmetic against the same in float64, and what wrong keys and wrong sums end in."""

from __future__ import annotations

import numpy as np
import pytest
import tenseal

from mmar_runtime.errors import WeightsError
from mmar_runtime.exchange.ckks import LARGEST, EncryptedSum, Keys
from mmar_runtime.exchange.encryption import SLOTS, VALUES, EncryptedPart, Layout

COUNT = VALUES + 500
"""One full ciphertext and one that is not."""


@pytest.fixture(scope="module")
def site(he_keys: tuple[bytes, bytes]) -> Keys:
    return Keys(he_keys[0], source="client_context.tenseal")


@pytest.fixture(scope="module")
def server(he_keys: tuple[bytes, bytes]) -> Keys:
    return Keys(he_keys[1], source="server_context.tenseal")


def row(seed: int, scale: float = 1.0) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).normal(0, scale, COUNT)


def added(server: Keys, *rows: tuple[bytes, ...]) -> tuple[bytes, ...]:
    total = EncryptedSum()
    for one in rows:
        total.add(server.loaded(one))
    return total.ciphertexts


def test_the_decrypted_mean_is_that_in_float64(site: Keys, server: Keys) -> None:
    rows, weights = [row(1), row(2), row(3)], [12.0, 7.0, 0.5]
    sent = [site.encrypt(one, weight) for one, weight in zip(rows, weights, strict=True)]

    mean = site.decrypt(added(server, *sent), sum(weights), COUNT)

    expected = sum(w * one for w, one in zip(weights, rows, strict=True)) / sum(weights)
    assert np.abs(mean - expected).max() < 1e-12


@pytest.mark.parametrize("weights", [(32.0, 32.0), (20.0, 30.0)])
def test_but_for_a_few_numbers_the_mean_has_the_bits_of_the_plain_one(
    site: Keys, server: Keys, weights: tuple[float, float]
) -> None:
    """Of equal weights every second mean lies in the middle of two numbers of float32."""
    ours, theirs = (row(seed, 0.05).astype(np.float32) for seed in (1, 2))
    ours[:100] = theirs[:100] = 0
    rows = [one.astype(np.float64) for one in (ours, theirs)]
    sent = [site.encrypt(one, weight) for one, weight in zip(rows, weights, strict=True)]
    mean = sum(w * one for w, one in zip(weights, rows, strict=True)) / sum(weights)
    layout = Layout(tensors={"w": ("float32", (COUNT,))})

    part = EncryptedPart(layout=layout, weight=sum(weights), ciphertexts=added(server, *sent))
    found = site.tensors(part)["w"]

    assert (found != mean.astype(np.float32)).sum() <= 5
    assert (found[:100] == 0).all()


@pytest.mark.parametrize(("scale", "weight"), [(1e-6, 1.0), (1.0, 1e-3), (1e4, 1e4), (1e6, 1e4)])
def test_small_and_large_numbers_keep_their_digits(site: Keys, scale: float, weight: float) -> None:
    one = row(4, scale)

    back = site.decrypt(site.encrypt(one, weight), weight, COUNT)

    assert np.abs(back - one).max() < 3e-12 / weight + 1e-14 * scale


def test_the_sum_has_the_same_bits_whatever_the_order(site: Keys, server: Keys) -> None:
    one, two, three = (site.encrypt(row(seed), 1.0) for seed in (1, 2, 3))

    assert added(server, one, two, three) == added(server, three, one, two)


def test_the_same_numbers_are_encrypted_differently_each_time(site: Keys) -> None:
    assert site.encrypt(row(1), 1.0) != site.encrypt(row(1), 1.0)


def test_a_server_has_no_secret_key_and_reads_nothing(site: Keys, server: Keys) -> None:
    assert not server.can_decrypt
    with pytest.raises(WeightsError, match="holds no secret key"):
        server.decrypt(site.encrypt(row(1), 1.0), 1.0, COUNT)


def test_other_keys_are_noticed(site: Keys) -> None:
    """CKKS itself gives numbers, whatever the key."""
    from fl_admin.kits.he_builder import new_keys

    other = Keys(new_keys()[0], source="client_context.tenseal")

    with pytest.raises(WeightsError, match="encrypted with other keys than those in client_c"):
        other.decrypt(site.encrypt(row(1), 1.0), 1.0, COUNT)


def test_a_weight_that_is_not_that_of_the_sum_is_noticed(site: Keys) -> None:
    with pytest.raises(WeightsError, match="not added up as they are said to be"):
        site.decrypt(site.encrypt(row(1), 3.0), 3.01, COUNT)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_encrypted(site: Keys, value: float) -> None:
    with pytest.raises(WeightsError, match="not finite would be encrypted"):
        site.encrypt(np.array([1.0, value]), 1.0)


def test_what_could_wrap_around_is_not_encrypted(site: Keys) -> None:
    site.encrypt(np.array([LARGEST / 2]), 2.0)
    with pytest.raises(WeightsError, match="is the most that can be encrypted"):
        site.encrypt(np.array([LARGEST / 2]), 3.0)


@pytest.mark.parametrize("weight", [0.0, 1e-4, float("nan"), -1.0])
def test_a_weight_that_would_leave_noise_is_refused(site: Keys, weight: float) -> None:
    with pytest.raises(WeightsError, match="the weight of this update"):
        site.encrypt(row(1), weight)


# --- what a server is sent


def test_what_is_no_ciphertext_of_this_federation_is_not_added(
    site: Keys, server: Keys, he_keys: tuple[bytes, bytes]
) -> None:
    context = tenseal.context_from(he_keys[0])
    [good] = site.encrypt(np.ones(3), 1.0)
    multiplied = tenseal.ckks_vector(context, [1.0] * SLOTS, 2.0**30) * 2.0
    bad = [
        b"",
        b"x" * 100,
        good[:1000],
        good[:-1],
        good + b"zz",
        bytes(tenseal.ckks_vector(context, [1.0] * 3).serialize()),
        bytes(tenseal.ckks_vector(context, [1.0] * SLOTS, 2.0**30).serialize()),
        bytes(multiplied.serialize()),
    ]

    for one in bad:
        with pytest.raises(WeightsError, match="a ciphertext"):
            server.loaded([one])
    assert server.loaded([good])


def transparent(good: bytes, he_keys: tuple[bytes, bytes]) -> bytes:
    """A ciphertext of the right form whose second polynomial is zero: anybody can read it."""
    context = tenseal.context_from(he_keys[0])
    one, same = (tenseal.ckks_vector_from(context, good) for _ in range(2))
    same += [1.0] * SLOTS
    with pytest.raises(RuntimeError, match="transparent"):
        one -= same
    return bytes(one.serialize())


def test_a_ciphertext_that_hides_nothing_is_refused_wherever_it_comes(
    site: Keys, server: Keys, he_keys: tuple[bytes, bytes]
) -> None:
    [good] = site.encrypt(np.ones(3), 1.0)
    bad = transparent(good, he_keys)

    for read in (lambda: server.loaded([bad]), lambda: site.decrypt([bad], -1.0, 3)):
        with pytest.raises(WeightsError, match="transparent: it hides nothing"):
            read()


def test_a_row_that_cancels_the_sum_is_refused_and_the_sum_keeps_its_bits(
    site: Keys, server: Keys, he_keys: tuple[bytes, bytes]
) -> None:
    """The row's first ciphertext could be added; its second is that of the sum, negated."""
    context = tenseal.context_from(he_keys[0])
    sent, other = site.encrypt(row(1), 1.0), site.encrypt(row(2), 1.0)
    negated = bytes((-tenseal.ckks_vector_from(context, sent[1])).serialize())
    total = EncryptedSum()
    total.add(server.loaded(sent))
    before = total.ciphertexts

    with pytest.raises(WeightsError, match="cannot be added to those of the others"):
        total.add(server.loaded((other[0], negated)))

    assert total.ciphertexts == before
    total.add(server.loaded(other))
    assert total.ciphertexts == added(server, sent, other)


def test_what_holds_no_keys_is_told(he_keys: tuple[bytes, bytes]) -> None:
    for content in (b"", b"no keys", he_keys[0][:1000]):
        with pytest.raises(WeightsError, match="a_file holds no keys that can be read"):
            Keys(content, source="a_file")


def test_keys_of_other_parameters_are_refused() -> None:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[40, 20, 40])
    context.global_scale = 2.0**20

    with pytest.raises(WeightsError, match="has the parameters 4096 and"):
        Keys(context.serialize(save_secret_key=True), source="a_file")


def test_keys_of_another_version_of_the_library_are_told_as_such(
    he_keys: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: bytes) -> None:
        raise RuntimeError("incompatible version")

    monkeypatch.setattr(tenseal, "context_from", refuse)

    with pytest.raises(WeightsError, match="was made by another version of TenSEAL than here"):
        Keys(he_keys[0], source="a_file")
