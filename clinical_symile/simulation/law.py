r"""The law of the simulated hospital: what an admission's ECG, laboratory panel and chest X-ray have to do with each other.

**The generative model.** There are ``K = 5`` channels (``CHANNELS``). In every channel each modality shows a binary *sign*:
``e`` on the ECG, ``l`` in the labs, ``x`` on the X-ray. Channels are independent, admissions are independent (also those of
one patient), and for each of them

1. with probability ``s`` (the *synergy*) the tie is **triple-wise**: ``e, l ~ Bernoulli(1/2)`` independently, ``x = e XOR l``;
2. with probability ``1 - s`` it is **pairwise**: ``u ~ Bernoulli(1/2)``, and ``e = l = x = u``.

Hence, for one channel,

.. math:: p(e, l, x) = \frac{s}{4}\,[x = e \oplus l] + \frac{1 - s}{2}\,[e = l = x].

Every sign is fair, ``p(e) = p(l) = p(x) = 1/2``, whatever ``s``. The law is symmetric in its three arguments. At ``s = 1``
any two modalities are independent: an ECG, or a lab panel, is compatible with either finding, and only together do they
decide. At ``s = 0`` one modality says all there is to say.

3. A sign that is present (= 1) has a *severity* in [1/2, 1], drawn independently for each modality: it carries no tie.
4. Given the signs and severities, the three modalities are rendered independently of each other. Every nuisance acts on one
   modality only: age on the ECG, sex and missingness on the labs, habitus, projection and exposure on the X-ray, noise on
   each. Therefore nothing but the signs ties the modalities, and the oracle (``oracle.py``) is exact.

The names of the channels are those of clinical conditions so that a clinician recognises what is shown. The ties between
them are invented: what the ECG's axis says about creatinine here says nothing about patients.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MINIMUM_SEVERITY: Final = 0.5
"""Present signs start here, at a level that a small network can learn from a few hundred examples."""


class Channel(NamedTuple):
    """One channel: its name and what each modality shows when its sign is 1."""

    name: str
    ecg: str
    labs: str
    cxr: str


CHANNELS: Final[tuple[Channel, ...]] = (
    Channel(
        "cardiomegaly",
        ecg="left axis deviation with the voltages of left ventricular hypertrophy",
        labs="renal failure: creatinine, urea nitrogen, phosphate and potassium high",
        cxr="enlarged heart",
    ),
    Channel(
        "edema",
        ecg="atrial fibrillation: irregular, f waves instead of P waves",
        labs="anaemia: haemoglobin, haematocrit and red cells low, RDW high",
        cxr="perihilar bat-wing haze and Kerley B lines",
    ),
    Channel(
        "effusion",
        ecg="T waves inverted in V4-V6, I and aVL",
        labs="sodium, chloride and albumin low",
        cxr="blunted costophrenic angle with a meniscus, on one or both sides",
    ),
    Channel(
        "consolidation",
        ecg="tachycardia of about 115 per minute",
        labs="inflammation: white cells, neutrophils and platelets high",
        cxr="dense lobar opacity with air bronchograms",
    ),
    Channel(
        "hyperinflation",
        ecg="right bundle branch block: wide terminal R' in V1 and S in I and V6",
        labs="carbon dioxide retention: bicarbonate and pCO2 high, chloride a little low",
        cxr="low flat diaphragm, narrow heart, lucent lungs",
    ),
)
CHANNEL_NAMES: Final[tuple[str, ...]] = tuple(channel.name for channel in CHANNELS)


class Signs(NamedTuple):
    """What each modality shows: three uint8 arrays (n, K) of 0 and 1."""

    ecg: NDArray[np.uint8]
    labs: NDArray[np.uint8]
    cxr: NDArray[np.uint8]


class Informations(NamedTuple):
    """Informations of one channel, in nats."""

    ecg_cxr: float
    labs_cxr: float
    ecg_labs: float
    both_cxr: float
    """I(e, l; x): what the ECG and the labs together say about the X-ray."""
    synergy: float
    """I(e, l; x) - I(e; x) - I(l; x): negative where the ECG and the labs repeat each other."""
    total_correlation: float


def joint(synergy: float) -> Array:
    """The law of one channel, ``p[e, l, x]``.

    Args:
        synergy: s in [0, 1].

    Returns:
        (2, 2, 2), sums to 1.

    Example:
        >>> joint(1.0)[1, 0]
        array([0.  , 0.25])
    """
    table = np.zeros((2, 2, 2))
    for e in (0, 1):
        for labs in (0, 1):
            table[e, labs, e ^ labs] += synergy / 4
        table[e, e, e] += (1 - synergy) / 2
    return table


def log_posterior_ratio(synergy: float) -> Array:
    """``log p(x | e, l) - log p(x)``, indexed [e, l, x], in nats.

    With ``q = s / (2 - s)``, the share of triple-wise ties among ``e = l = 1``:

    * ``e = l = 0``: log 2 for x = 0, -inf for x = 1;
    * ``e != l``: -inf for x = 0, log 2 for x = 1;
    * ``e = l = 1``: log 2q for x = 0, log 2(1 - q) for x = 1.

    Args:
        synergy: s in [0, 1].

    Returns:
        (2, 2, 2); -inf where x is impossible, NaN where (e, l) itself is impossible (e != l at s = 0).
    """
    table = joint(synergy)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(table / table.sum(axis=2, keepdims=True)) - np.log(table.sum(axis=(0, 1)))


def sample_signs(n: int, synergy: float, rng: np.random.Generator) -> Signs:
    """Draws the signs of ``n`` admissions.

    Args:
        n: number of admissions.
        synergy: s in [0, 1].
        rng: source of randomness. The same generator gives the same coin tosses at every synergy.

    Returns:
        Three arrays (n, K).
    """
    shape = (n, len(CHANNELS))
    triple = rng.random(shape) < synergy
    ecg, other = rng.integers(0, 2, (2, *shape), dtype=np.uint8)
    labs = np.where(triple, other, ecg)
    return Signs(ecg, labs, np.where(triple, ecg ^ labs, ecg))


def draw_severities(signs: NDArray[np.uint8], rng: np.random.Generator) -> Array:
    """Severities of one modality's signs: uniform on [1/2, 1] where the sign is 1, else 0. Same shape as ``signs``."""
    return signs * rng.uniform(MINIMUM_SEVERITY, 1.0, signs.shape)


def informations(synergy: float) -> Informations:
    r"""The informations of one channel in closed form, in nats.

    With the binary entropy ``h`` and ``q = s / (2 - s)``:

    * any two modalities agree with probability ``1 - s/2``, so ``I(e; x) = I(l; x) = I(e; l) = log 2 - h(s/2)``;
    * ``x`` is uncertain only where ``e = l = 1``, which has probability ``(2 - s)/4``: ``I(e, l; x) = log 2 - (2 - s)/4 h(q)``;
    * total correlation ``= I(e; l) + I(e, l; x)``.

    Args:
        synergy: s in [0, 1].
    """
    pair = np.log(2) - binary_entropy(synergy / 2)
    both = np.log(2) - (2 - synergy) / 4 * binary_entropy(synergy / (2 - synergy))
    return Informations(
        ecg_cxr=float(pair),
        labs_cxr=float(pair),
        ecg_labs=float(pair),
        both_cxr=float(both),
        synergy=float(both - 2 * pair),
        total_correlation=float(pair + both),
    )


def binary_entropy(p: float) -> float:
    """``h(p) = -p log p - (1 - p) log(1 - p)``, in nats."""
    return float(-sum(q * np.log(q) for q in (p, 1 - p) if q > 0))
