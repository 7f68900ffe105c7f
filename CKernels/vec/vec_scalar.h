// The vector vocabulary in plain C: 1 lane, no intrinsics. Names and rules as in vec_avx2.h.
#include <math.h>
#include <string.h>

#define VL 1
typedef float vf;
typedef int vm;

CK_INLINE vm vf_first(size_t n) { return n > 0; }
CK_INLINE vf vf_load(const float *p) { return *p; }
CK_INLINE void vf_store(float *p, vf x) { *p = x; }
CK_INLINE vf vf_load_n(const float *p, size_t n) { return n ? *p : 0; }
CK_INLINE void vf_store_n(float *p, vf x, size_t n) {
  if (n) *p = x;
}
CK_INLINE vf vf_set1(float x) { return x; }
CK_INLINE vf vf_broadcast(const float *p) { return *p; }
CK_INLINE vf vf_zero(void) { return 0; }
CK_INLINE vf vf_add(vf a, vf b) { return a + b; }
CK_INLINE vf vf_sub(vf a, vf b) { return a - b; }
CK_INLINE vf vf_mul(vf a, vf b) { return a * b; }
CK_INLINE vf vf_div(vf a, vf b) { return a / b; }
CK_INLINE vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
CK_INLINE vf vf_fnma(vf a, vf b, vf c) { return c - a * b; }
CK_INLINE vf vf_min(vf a, vf b) { return a < b ? a : b; }
CK_INLINE vf vf_max(vf a, vf b) { return a > b ? a : b; }
CK_INLINE vf vf_sqrt(vf a) { return sqrtf(a); }
CK_INLINE vf vf_round(vf a) { return rintf(a); }
CK_INLINE vf vf_abs(vf a) { return fabsf(a); }
CK_INLINE vf vf_copysign(vf a, vf s) { return copysignf(a, s); }
CK_INLINE vm vf_lt(vf a, vf b) { return a < b; }
CK_INLINE vf vf_select(vm m, vf a, vf b) { return m ? a : b; }
CK_INLINE vf vf_pow2_(int32_t e) {
  uint32_t bits = (uint32_t)(e + 127) << 23;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
// NaN and infinity have no integer; what callers make of such lanes does not depend on this one.
CK_INLINE int32_t vf_integer_(vf e) { return fabsf(e) <= 254 ? (int32_t)e : 0; }
CK_INLINE vf vf_scalef(vf x, vf e) {
  int32_t n = vf_integer_(e), half = n >> 1;
  return x * vf_pow2_(half) * vf_pow2_(n - half);
}
CK_INLINE vf vf_scalen(vf x, vf e) { return x * vf_pow2_(vf_integer_(e)); }
CK_INLINE float vf_reduce_add(vf a) { return a; }
CK_INLINE float vf_reduce_max(vf a) { return a; }
CK_INLINE void vf_transpose(const float *src, size_t src_rs, float *dst, size_t dst_rs) {
  (void)src_rs, (void)dst_rs;
  *dst = *src;
}
