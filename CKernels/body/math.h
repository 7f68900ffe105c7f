// Elementary functions over vf. Coefficients from tools/fit_math.py; n = round(x log2 e), r = x - n ln 2, e^x = 2^n p(r).
// Where n is small, t = x log2 e + 1.5 2^23 + 127 rounds it and holds 2^n's exponent field in its lowest bits: no conversion.
//
// Largest errors, u = 2^-24, y the exact value. "measured": AVX2, every float32 input, against the double C library.
// "bound": for every ISA, so also without fused multiply-add, and what tests assert; results below 2^-126 add 2^-149.
//   function         measured     bound                  at the edges
//   exp              0.90 ulp     2 ulp, 2 u |y|         inf above 88.7228, gradual underflow, 0 below -103.972
//   exp_nonpositive  0.90 ulp     2 ulp, 2 u |y|         1 at 0; 0 where y < 2^-126
//   sigmoid          2.4 ulp      3 ulp, 4 u |y|         gradual underflow
//   tanh             2.5 ulp      3 ulp, 4 u |y|         odd, exact for tiny x, 1 from 10 on
//   silu             3.9 u |y|    5 u |y| + 2^-149 |x|   the second term counts below -87.3 only
//   gelu_tanh        2.0 u |x|    3 u |x|                (4 + 5 |w|) u |y| for x < 0 while w > -87; then 0, an error < 2^-122
//   gelu_erf         3.7 u |x|    4.5 u |x|              0 below -6.1 and x above 6.1, never of the wrong sign
//   quick_gelu       2.0 u |x|    3 u |x|                (4 + 5 |w|) u |y| for x < 0 while w > -87; then 0, an error < 2^-118
//   erf              1.1 ulp      2 ulp, 2 u |y|         odd, 1 from 4 on
//   softplus         2.9 ulp      4 ulp, 5 u |y|         gradual underflow
//   relu             exact        exact                  -0 stays
// NaN gives NaN everywhere. At -inf silu and both GELUs give NaN, as x times the limit 0 does in double and in PyTorch.
#define MATH_EACH_(count) _Pragma("clang loop unroll(full)") for (size_t v = 0; v < (count); v++)

// p = e^r for |r| <= 0.347, for `count` vectors step by step: a processor's schedulers hold too few instructions to find another
// vector's while one waits for its own.
CK_INLINE void math_exp_poly_(const size_t count, const vf *r, vf *p) {
  static const float rest[] = {0x1.1239b2p-7f, 0x1.5558b8p-5f, 0x1.555492p-3f, 0x1.fffffcp-2f, 1, 1};
  MATH_EACH_(count) p[v] = vf_set1(0x1.6a45d0p-10f);
#pragma clang loop unroll(full)
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) MATH_EACH_(count) p[v] = vf_fma(p[v], r[v], vf_set1(rest[i]));
}
CK_INLINE vf vf_exp_poly_(vf r) {
  vf p;
  math_exp_poly_(1, &r, &p);
  return p;
}

#define MATH_LOG2E_ 0x1.715476p0f
#define MATH_LN2_HI_ 0x1.62e4p-1f  // 15 bits, so n * hi is exact
#define MATH_LN2_LO_ 0x1.7f7d1cp-20f

// e^x; overflows to infinity, underflows through the denormals to 0.
CK_INLINE vf vf_exp_(vf x) {
  x = vf_min(vf_set1(89), vf_max(vf_set1(-104), x));
  vf n = vf_round(vf_max(vf_mul(x, vf_set1(MATH_LOG2E_)), vf_set1(-151)));  // never NaN: it becomes an integer
  vf r = vf_fnma(n, vf_set1(MATH_LN2_LO_), vf_fnma(n, vf_set1(MATH_LN2_HI_), x));
  return vf_scalef(vf_exp_poly_(r), n);
}

#define MATH_ROUND_ 0x1.8000fep23f

// x = 2^up e^x for x <= 0, and 0 for x < low; low log2 e + up is at least -126 (up a constant). Up to 4 vectors.
CK_INLINE void math_exp_down_(const size_t count, vf *x, const float up, const float low) {
  vf t[4], n[4], r[4], p[4];
  MATH_EACH_(count) t[v] = vf_fma(x[v], vf_set1(MATH_LOG2E_), vf_set1(MATH_ROUND_ + up));
  MATH_EACH_(count) n[v] = vf_sub(t[v], vf_set1(MATH_ROUND_ + up));
  MATH_EACH_(count) r[v] = vf_fnma(n[v], vf_set1(MATH_LN2_HI_), x[v]);
  MATH_EACH_(count) r[v] = vf_fnma(n[v], vf_set1(MATH_LN2_LO_), r[v]);
  math_exp_poly_(count, r, p);
  MATH_EACH_(count) p[v] = vf_mul(p[v], vf_shift23(t[v]));
  MATH_EACH_(count) x[v] = vf_clear(vf_lt(x[v], vf_set1(low)), p[v]);
}

// e^x for x <= 0; 1 at 0, and 0 wherever e^x is below the normal range.
CK_INLINE void math_exp_nonpositive_(const size_t count, vf *x) { math_exp_down_(count, x, 0, -0x1.5d589ep6f); }
CK_INLINE vf vf_exp_nonpositive_(vf x) {
  math_exp_nonpositive_(1, &x);
  return x;
}

CK_INLINE vf vf_relu_(vf x) { return vf_max(vf_zero(), x); }

// x Phi(x), Phi the normal distribution: Phi(x) = 1/2 + x P(x^2)/Q(x^2) for |x| < 5.8. The quotient passes 1/2 between 5.7
// and 5.8 and is 16 u above it at 6.1, so that the clamps make Phi exactly 0 and 1 beyond.
CK_INLINE vf vf_gelu_erf_(vf x) {
  vf a = vf_max(vf_set1(-6.1f), vf_min(vf_set1(6.1f), x)), s = vf_mul(a, a);
  vf p = vf_set1(0x1.72bffcp-26f), q = vf_set1(0x1.38b7b0p-20f);
  p = vf_fma(p, s, vf_set1(0x1.abc3c0p-18f));
  q = vf_fma(q, s, vf_set1(0x1.41fd46p-14f));
  p = vf_fma(p, s, vf_set1(0x1.783808p-13f));
  q = vf_fma(q, s, vf_set1(0x1.fdc116p-10f));
  p = vf_fma(p, s, vf_set1(0x1.36b1f4p-8f));
  q = vf_fma(q, s, vf_set1(0x1.df6864p-6f));
  p = vf_fma(p, s, vf_set1(0x1.1e3d14p-5f));
  q = vf_fma(q, s, vf_set1(0x1.045a26p-2f));
  p = vf_fma(p, s, vf_set1(0x1.98844ep-2f));
  q = vf_fma(q, s, vf_set1(1));
  vf t = vf_max(vf_set1(-0.5f), vf_min(vf_set1(0.5f), vf_div(vf_mul(a, p), q)));
  return vf_mul(x, vf_add(vf_set1(0.5f), t));
}

// x / (1 + e^-w) with |w| = |x| c, c > 0: the product is exact inside the exponential where the ISA has an FMA.
CK_INLINE vf math_gate_(vf x, vf c) {
  vf a = vf_abs(x), w = vf_mul(a, c);
  vf t = vf_fnma(w, vf_set1(MATH_LOG2E_), vf_set1(MATH_ROUND_)), n = vf_sub(t, vf_set1(MATH_ROUND_));
  vf r = vf_fnma(a, c, vf_mul(n, vf_set1(-MATH_LN2_HI_)));
  vf z = vf_mul(vf_exp_poly_(vf_fnma(n, vf_set1(MATH_LN2_LO_), r)), vf_shift23(t));
  z = vf_select(vf_lt(w, vf_set1(87.25f)), z, vf_zero());  // w is rounded: whatever lies below 87 is in
  vf top = vf_select(vf_lt(x, vf_zero()), vf_mul(x, z), x);
  return vf_div(top, vf_add(vf_set1(1), z));
}

// w = 2 sqrt(2/pi) (x + 0.044715 x^3): x/2 (1 + tanh(w/2)).
CK_INLINE vf vf_gelu_tanh_(vf x) { return math_gate_(x, vf_fma(vf_mul(x, x), vf_set1(0x1.2444f2p-4f), vf_set1(0x1.988454p+0f))); }

// x sigmoid(1.702 x).
CK_INLINE vf vf_quick_gelu_(vf x) { return math_gate_(x, vf_set1(0x1.b3b646p+0f)); }

// z = e^-|x| never overflows: sigmoid(x) = 1 / (1 + z) for x >= 0 and z / (1 + z) below. With 2^32 z instead of z, which is
// normal for any x, a result is rounded into the denormals once.
CK_INLINE vf math_high_(vf x) {
  x = vf_copysign(x, vf_set1(-1));
  math_exp_down_(1, &x, 32, -104);
  return x;
}
CK_INLINE vf math_one_plus_(vf high) { return vf_fma(high, vf_set1(0x1p-32f), vf_set1(1)); }

CK_INLINE vf vf_sigmoid_(vf x) {
  vf high = math_high_(x), top = vf_select(vf_lt(x, vf_zero()), high, vf_set1(0x1p32f));
  return vf_div(vf_mul(top, vf_set1(0x1p-32f)), math_one_plus_(high));
}

CK_INLINE vf vf_silu_(vf x) {
  vf high = math_high_(x), below = vf_mul(vf_mul(x, high), vf_set1(0x1p-32f));
  return vf_div(vf_select(vf_lt(x, vf_zero()), below, x), math_one_plus_(high));
}

// With e = expm1(-2|x|): tanh |x| = -e / (2 + e). e = 2^n (p(r) - 1) + (2^n - 1) keeps tiny x exact.
CK_INLINE vf vf_tanh_(vf x) {
  vf y = vf_max(vf_set1(-20), vf_mul(vf_abs(x), vf_set1(-2)));
  vf t = vf_fma(y, vf_set1(MATH_LOG2E_), vf_set1(MATH_ROUND_)), n = vf_sub(t, vf_set1(MATH_ROUND_));
  vf r = vf_fnma(n, vf_set1(MATH_LN2_LO_), vf_fnma(n, vf_set1(MATH_LN2_HI_), y));
  vf p = vf_set1(0x1.6b9cbep-10f);
  p = vf_fma(p, r, vf_set1(0x1.12256ap-7f));
  p = vf_fma(p, r, vf_set1(0x1.5556f2p-5f));
  p = vf_fma(p, r, vf_set1(0x1.5554b4p-3f));
  p = vf_fma(p, r, vf_set1(0x1.fffffep-2f));
  p = vf_fma(vf_mul(r, r), p, r);
  vf scale = vf_shift23(t);
  vf e = vf_fma(scale, p, vf_sub(scale, vf_set1(1)));
  return vf_copysign(vf_div(e, vf_add(vf_set1(2), e)), x);
}

// x + x p(x^2) for |x| < 1, else 1 - e^-q(|x|), q = -log erfc.
CK_INLINE vf vf_erf_(vf x) {
  vf a = vf_min(vf_set1(4), vf_abs(x)), s = vf_mul(x, x);
  vf p = vf_set1(0x1.4771fep-14f), q = vf_set1(0x1.6bca66p-16f);
  p = vf_fma(p, s, vf_set1(-0x1.a3515ep-11f));
  q = vf_fma(q, a, vf_set1(-0x1.cebd88p-12f));
  p = vf_fma(p, s, vf_set1(0x1.53f224p-8f));
  q = vf_fma(q, a, vf_set1(0x1.138a90p-8f));
  p = vf_fma(p, s, vf_set1(-0x1.b7f71ap-6f));
  q = vf_fma(q, a, vf_set1(-0x1.9d01d8p-6f));
  p = vf_fma(p, s, vf_set1(0x1.ce2ce6p-4f));
  q = vf_fma(q, a, vf_set1(0x1.bc14bcp-4f));
  p = vf_fma(p, s, vf_set1(-0x1.81273ep-2f));
  q = vf_fma(q, a, vf_set1(0x1.44356ep-1f));
  p = vf_fma(p, s, vf_set1(0x1.06eba8p-3f));
  q = vf_fma(q, a, vf_set1(0x1.212c0cp+0f));
  q = vf_fma(q, a, vf_set1(-0x1.8a5736p-13f));
  vf far = vf_copysign(vf_sub(vf_set1(1), vf_exp_nonpositive_(vf_sub(vf_zero(), q))), x);
  return vf_select(vf_lt(a, vf_set1(1)), vf_fma(x, p, x), far);
}

// log(1 + e^x) = max(x, 0) + log(1 + z), z = e^-|x|, and log(1 + z) = 2 atanh(d / 2) with d = 2 z / (2 + z).
CK_INLINE vf vf_softplus_(vf x) {
  vf z = vf_mul(math_high_(x), vf_set1(0x1p-32f));
  vf d = vf_div(vf_add(z, z), vf_add(vf_set1(2), z)), s = vf_mul(vf_mul(d, vf_set1(0.25f)), d);
  vf p = vf_fma(vf_set1(0x1.1f0578p-3f), s, vf_set1(0x1.1eb3a2p-3f));
  p = vf_fma(p, s, vf_set1(0x1.99d29ep-3f));
  p = vf_fma(p, s, vf_set1(0x1.555500p-2f));
  return vf_add(vf_relu_(x), vf_fma(vf_mul(d, s), p, d));
}

// Every kind has its own loop: CK_WITH_ACTIVATION(kind, f, ...) calls f(constant kind, ...), and f inlines ck_activate_.
CK_INLINE vf ck_activate_(vf x, ck_activation kind) {
  switch (kind) {
    case CK_RELU:
      return vf_relu_(x);
    case CK_GELU_ERF:
      return vf_gelu_erf_(x);
    case CK_GELU_TANH:
      return vf_gelu_tanh_(x);
    case CK_SILU:
      return vf_silu_(x);
    case CK_TANH:
      return vf_tanh_(x);
    case CK_SIGMOID:
      return vf_sigmoid_(x);
    case CK_QUICK_GELU:
      return vf_quick_gelu_(x);
    default:
      return x;
  }
}
#define CK_WITH_ACTIVATION(kind, f, ...) \
  do {                                   \
    switch (kind) {                      \
      case CK_RELU:                      \
        f(CK_RELU, __VA_ARGS__);         \
        break;                           \
      case CK_GELU_ERF:                  \
        f(CK_GELU_ERF, __VA_ARGS__);     \
        break;                           \
      case CK_GELU_TANH:                 \
        f(CK_GELU_TANH, __VA_ARGS__);    \
        break;                           \
      case CK_SILU:                      \
        f(CK_SILU, __VA_ARGS__);         \
        break;                           \
      case CK_TANH:                      \
        f(CK_TANH, __VA_ARGS__);         \
        break;                           \
      case CK_SIGMOID:                   \
        f(CK_SIGMOID, __VA_ARGS__);      \
        break;                           \
      case CK_QUICK_GELU:                \
        f(CK_QUICK_GELU, __VA_ARGS__);   \
        break;                           \
      default:                           \
        f(CK_IDENTITY, __VA_ARGS__);     \
    }                                    \
  } while (0)

// The first n of VL lanes; with n = VL constant, the plain load and store.
CK_INLINE vf row_load_(const float *p, size_t n) { return n == VL ? vf_load(p) : vf_load_n(p, n); }
CK_INLINE void row_store_(float *p, vf x, size_t n) {
  if (n == VL)
    vf_store(p, x);
  else
    vf_store_n(p, x, n);
}

// Fetches what lies `ahead` elements on, which may be past the end: the pass over x that follows then waits for no memory.
CK_INLINE void row_fetch_(const float *x, size_t ahead) { __builtin_prefetch((const void *)((uintptr_t)x + ahead * sizeof *x)); }

// Runs f(j, lanes) for columns [0, n): whole vectors first, then the masked tail, so that only the tail pays for a mask.
#define ROW_COLUMNS_(n, f)           \
  do {                               \
    size_t j = 0;                    \
    for (; j + VL <= (n); j += VL) { \
      f(j, (size_t)VL);              \
    }                                \
    if (j < (n)) {                   \
      f(j, (n) - j);                 \
    }                                \
  } while (0)

// Columns [0, seen) of row i: j <= i + diagonal, without overflow at CK_NO_DIAGONAL.
CK_INLINE size_t row_seen_(size_t i, ptrdiff_t diagonal, size_t n) {
  if (diagonal >= (ptrdiff_t)n) return n;
  const ptrdiff_t seen = (ptrdiff_t)i + diagonal + 1;
  return seen <= 0 ? 0 : CK_MIN((size_t)seen, n);
}
