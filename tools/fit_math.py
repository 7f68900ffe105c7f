"""Fits the polynomial and rational coefficients of CKernels/body/math.h, random.h and attention_pairs.h and prints them as C arrays.

Run: python3 tools/fit_math.py        (needs numpy, scipy and mpmath; deterministic, no random numbers)

Every fit minimises the largest weighted error on a dense Chebyshev grid as a linear programme. Coefficients are then rounded
to float32 one at a time, lowest first, and the rest are fitted again, so that the printed table is what the error figure is of.
"""

import mpmath as mp
import numpy as np
from scipy.optimize import linprog

mp.mp.dps = 40
U = 2.0**-24


def grid(lo, hi, count):
    k = np.arange(count)
    return (lo + hi) / 2 + (hi - lo) / 2 * np.cos(np.pi * (k + 0.5) / count)


def minimax(columns, target, weight):
    """Coefficients c that minimise max |weight (columns c - target)|."""
    a = columns * weight[:, None]
    b = target * weight
    size = np.abs(a).max(axis=0)
    a = a / size
    unit = 1e-9  # the error is counted in units near its own size: the solver's tolerances are absolute
    ones = np.ones((len(b), 1))
    start = np.linalg.lstsq(a, b, rcond=None)[0]
    rest = (b - a @ start) / unit
    scaled = np.vstack([np.hstack([a, -ones]), np.hstack([-a, -ones])])
    cost = np.zeros(a.shape[1] + 1)
    cost[-1] = 1
    solved = linprog(cost, A_ub=scaled, b_ub=np.concatenate([rest, -rest]), bounds=[(None, None)] * len(cost), method="highs")
    return (start + solved.x[:-1] * unit) / size


def rounded_fit(columns, target, weight, fixed=()):
    """Minimax coefficients in float32; `fixed` are the values of the first ones."""
    done = [float(np.float32(c)) for c in fixed]
    while len(done) < columns.shape[1]:
        known = columns[:, : len(done)] @ np.array(done) if done else 0
        done.append(float(np.float32(minimax(columns[:, len(done) :], target - known, weight)[0])))
    done = np.array(done)
    return done, np.abs(weight * (columns @ done - target)).max()


def show(name, coefficients, error):
    print(f"// {name}: largest error of the fit {error / U:.3f} u")
    print("{" + ", ".join(float(np.float32(c)).hex().replace("0000000p", "p") + "f" for c in coefficients) + "}")
    print("// " + " ".join(f"{c:.9g}" for c in coefficients))


def fit_exp():
    # e^r = 1 + r (c1 + c2 r + ...): 1 is exact, so e^0 is too. |r| <= ln 2 / 2, a little more for the rounding of n.
    r = grid(-0.3470, 0.3470, 2000)
    for degree in (5, 6):
        columns = np.stack([r**i for i in range(1, degree + 1)], axis=1)
        show(f"exp degree {degree}", *rounded_fit(columns, np.expm1(r), np.exp(-r)))


def fit_exp2():
    # 2^f = 1 + f (c1 + c2 f + ...) for f in [0, 1), in attention_pairs.h.
    f = grid(0, 1, 2000)
    columns = np.stack([f**i for i in range(1, 6)], axis=1)
    show("exp2", *rounded_fit(columns, np.expm1(f * np.log(2)), np.exp2(-f)))


def fit_expm1():
    # e^r - 1 = r + r^2 (c2 + c3 r + ...), relative to e^r - 1.
    r = grid(-0.3470, 0.3470, 2000)
    target = np.array([float((mp.expm1(mp.mpf(x)) - x) / mp.mpf(x) ** 2) for x in r])
    for degree in (3, 4):
        columns = np.stack([r**i for i in range(degree + 1)], axis=1)
        show(f"expm1 degree {degree + 2}", *rounded_fit(columns, target, r**2 / np.expm1(r)))


def fit_normal(top=5, bottom=5, limit=5.7):
    # R(s) = (Phi(a) - 1/2) / a = P(s) / Q(s), s = a^2, Q(0) = 1: P - R Q = 0 is linear, and a few reweightings by 1 / Q reach
    # the minimax quotient. The error counted is that of a R(s), which is that of Phi.
    a = grid(0, limit, 1500)
    r = np.array([float(mp.erf(mp.mpf(x) / mp.sqrt(2)) / 2 / mp.mpf(x)) for x in a])
    powers = np.stack([a ** (2 * i) for i in range(max(top, bottom) + 1)], axis=1)
    columns = np.hstack([powers[:, : top + 1], -r[:, None] * powers[:, 1 : bottom + 1]])
    q = np.ones_like(a)
    for _ in range(30):
        c = minimax(columns, r, a / q)
        q = 1 + powers[:, 1 : bottom + 1] @ c[top + 1 :]
    denominator = np.float32(np.concatenate([[1], c[top + 1 :]])).astype(float)
    q = powers[:, : bottom + 1] @ denominator
    numerator, error = rounded_fit(powers[:, : top + 1] / q[:, None], r, a)
    show("normal P", numerator, error)
    show("normal Q", denominator, error)


def fit_log():
    # log(1 + f) = f - f^2 / 2 + f^3 P(f), relative to the whole; f from sqrt(1/2) - 1 to sqrt(2) - 1.
    f = grid(np.sqrt(0.5) - 1, np.sqrt(2) - 1, 2000)
    target = np.array([float((mp.log1p(mp.mpf(x)) - mp.mpf(x) + mp.mpf(x) ** 2 / 2) / mp.mpf(x) ** 3) for x in f])
    for degree in (6, 7, 8):
        columns = np.stack([f**i for i in range(degree + 1)], axis=1)
        show(f"log degree {degree + 3}", *rounded_fit(columns, target, f**3 / np.log1p(f)))


def fit_turn():
    # sin(2 pi t) = t P(t^2) and cos(2 pi t) = 1 + t^2 Q(t^2), |t| <= 1/8 of a turn.
    t = grid(-0.12501, 0.12501, 2000)
    sine = np.array([float(mp.sin(2 * mp.pi * mp.mpf(x)) / mp.mpf(x)) for x in t])
    cosine = np.array([float((mp.cos(2 * mp.pi * mp.mpf(x)) - 1) / mp.mpf(x) ** 2) for x in t])
    for terms in (4, 5):
        columns = np.stack([t ** (2 * i) for i in range(terms)], axis=1)
        show(f"sin {terms} terms", *rounded_fit(columns, sine, 1 / sine))
        show(f"cos {terms} terms", *rounded_fit(columns, cosine, t**2))


def fit_erf(split=1.0, limit=4.0):
    # Below the split erf(a) = a + a p(a^2), relative to erf; above it 1 - e^-q(a): the error counted is that of erf.
    a = grid(1e-4, split, 1500)
    target = np.array([float(mp.erf(mp.mpf(x)) / mp.mpf(x) - 1) for x in a])
    columns = np.stack([a ** (2 * i) for i in range(7)], axis=1)
    show("erf below the split", *rounded_fit(columns, target, a / np.array([float(mp.erf(mp.mpf(x))) for x in a])))
    a = grid(split, limit, 1500)
    tail = np.array([float(mp.erfc(mp.mpf(x))) for x in a])
    target = np.array([float(-mp.log(mp.erfc(mp.mpf(x)))) for x in a])
    columns = np.stack([a**i for i in range(8)], axis=1)
    show("-log erfc above it", *rounded_fit(columns, target, tail))


def fit_log1p():
    # log(1 + z) = d + d s R(s), d = 2 z / (2 + z), s = (d / 2)^2, for z in (0, 1].
    d = grid(1e-3, 2 / 3, 1500)
    s = (d / 2) ** 2
    target = np.array([float((mp.atanh(mp.mpf(x) / 2) * 2 / mp.mpf(x) - 1) / (mp.mpf(x) / 2) ** 2) for x in d])
    columns = np.stack([s**i for i in range(4)], axis=1)
    show("log1p", *rounded_fit(columns, target, s))


def fit_constants():
    log2 = mp.log(2)
    high = float(mp.floor(log2 * 2**15) / 2**15)  # 15 bits: n * high is exact for |n| < 2^9
    print("ln2_hi", high.hex(), high, "ln2_lo", float(np.float32(float(log2 - mp.mpf(high)))).hex(), float(log2 - mp.mpf(high)))
    c = mp.sqrt(2 / mp.pi) * 2
    hi = float(np.float32(float(c)))
    print("2 sqrt(2/pi)", hi.hex(), "rest", float(c - mp.mpf(hi)))
    d = c * mp.mpf("0.044715")
    print("times 0.044715", float(np.float32(float(d))).hex(), float(d))
    print("smallest x with a normal e^x", float(mp.log(mp.mpf(2) ** -126)), "log2 e", float(1 / log2))


if __name__ == "__main__":
    fit_constants()
    fit_exp()
    fit_exp2()
    fit_expm1()
    fit_normal()
    fit_log()
    fit_turn()
    fit_erf()
    fit_log1p()
