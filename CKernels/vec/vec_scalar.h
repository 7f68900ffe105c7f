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
CK_INLINE vf vf_load_2(const float *p) { return *p; }
CK_INLINE vf vf_gather(const float *p, const int32_t *index) { return p[*index]; }
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
CK_INLINE vm vf_nan(vf a) { return a != a; }
CK_INLINE uint32_t vf_bits(vm m) { return (uint32_t)m; }
CK_INLINE vf vf_select(vm m, vf a, vf b) { return m ? a : b; }
CK_INLINE vf vf_clear(vm m, vf a) { return m ? 0 : a; }
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
CK_INLINE vf vf_shift23(vf a) { return ck_float_(ck_bits_(a) << 23); }
CK_INLINE float vf_reduce_add(vf a) { return a; }
CK_INLINE float vf_reduce_max(vf a) { return a; }
CK_INLINE void vf_unzip(vf a, vf b, vf *even, vf *odd) { *even = a, *odd = b; }
CK_INLINE void vf_zip(vf even, vf odd, vf *a, vf *b) { *a = even, *b = odd; }
CK_INLINE vf vf_load_bf16(const uint16_t *p) { return ck_float_((uint32_t)*p << 16); }
CK_INLINE vf vf_load_s8(const void *p) { return *(const int8_t *)p; }
typedef uint32_t vi;  // a pair of int16, the first low; or an int32; or four int8
CK_INLINE int32_t vi_first_(vi x) { return (int16_t)(x & 0xFFFF); }
CK_INLINE int32_t vi_second_(vi x) { return (int16_t)(x >> 16); }
CK_INLINE vi vi_set1(int32_t x) { return (vi)x; }
CK_INLINE vi vi_load(const void *p) {
  uint16_t pair[2];
  memcpy(pair, p, sizeof pair);
  return pair[0] | (vi)pair[1] << 16;
}
CK_INLINE vi vi_load_s8(const void *p) { return (uint16_t)((const int8_t *)p)[0] | (vi)((const int8_t *)p)[1] << 16; }
CK_INLINE vi vi_bits(vi x, int at, int mask) { return x >> at & (vi)mask * 0x10001; }
CK_INLINE vi vi_e2m1(vi x, int at) {
  static const int8_t values[16] = {CK_E2M1};
  return (uint16_t)values[x >> at & 15] | (vi)values[x >> (16 + at) & 15] << 16;
}
CK_INLINE vi vi_e2m1_bytes(vi x) {
  static const int8_t values[16] = {CK_E2M1};
  vi y = 0;
  for (int at = 0; at < 32; at += 8) y |= (vi)(values[x >> at & 15] + 12) << at;
  return y;
}
CK_INLINE vi vi_join16(const void *low, const void *high) {
  uint16_t pair[2];
  memcpy(pair, low, sizeof *pair), memcpy(pair + 1, high, sizeof *pair);
  return pair[0] | (vi)pair[1] << 16;
}
CK_INLINE vi vi_up(vi x, int n) { return x << n; }
CK_INLINE vi vi_or(vi a, vi b) { return a | b; }
CK_INLINE vi vi_dot(vi s, vi a, vi b) { return s + (vi)(vi_first_(a) * vi_first_(b) + vi_second_(a) * vi_second_(b)); }
CK_INLINE void vi_pin(vi *x) { __asm__("" : "+r"(*x)); }
CK_INLINE vf vi_float(vi x) { return (float)(int32_t)x; }
CK_INLINE vi vi_s8_even(vi x) { return (uint16_t)(int8_t)(x & 0xFF) | (vi)(int8_t)(x >> 16 & 0xFF) << 16; }
CK_INLINE vi vi_s8_odd(vi x) { return vi_s8_even(x >> 8); }
CK_INLINE void vf_store_s8(int8_t *p, vf x) { *p = (int8_t)rintf(x); }
CK_INLINE void vf_store_s16(int16_t *p, vf x) { *p = (int16_t)rintf(x); }
CK_INLINE void vf_store_bf16(uint16_t *p, vf x) {
  const uint32_t bits = ck_bits_(x);
  *p = (uint16_t)((x != x ? bits | 1u << 22 : bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
// A half's bits, shifted into place, are 2^-112 of its value, denormals included: one exact product.
CK_INLINE vf vf_load_f16(const uint16_t *p) {
  const uint32_t sign = (uint32_t)(*p & 0x8000) << 16, body = *p & 0x7FFF;
  if (body >= 0x7C00) return ck_float_(sign | 0x7F800000 | (body & 0x3FF) << 13 | (body > 0x7C00) << 22);
  return ck_float_(sign | ck_bits_(ck_float_(body << 13) * 0x1p112f));
}
CK_INLINE void vf_store_f16(uint16_t *p, vf x) {
  const uint32_t bits = ck_bits_(x), sign = bits >> 16 & 0x8000, body = bits & 0x7FFFFFFF;
  uint32_t half;
  if (body > 0x7F800000)
    half = 0x7E00 | (body >> 13 & 0x3FF);
  else if (body >= 0x477FF000)  // from 65520 on the nearest half is infinity
    half = 0x7C00;
  else if (body < 0x38800000)  // denormal halves are multiples of the last place of 0.5
    half = ck_bits_(ck_float_(body) + 0.5f) - 0x3F000000;
  else
    half = (body - 0x38000000 + 0xFFF + (body >> 13 & 1)) >> 13;
  *p = (uint16_t)(sign | half);
}
CK_INLINE void vf_load_2_bf16(const uint16_t *p, vf *even, vf *odd) { *even = vf_load_bf16(p), *odd = vf_load_bf16(p + 1); }
CK_INLINE vf vf_load_n_bf16(const uint16_t *p, size_t n) { return n ? vf_load_bf16(p) : 0; }
CK_INLINE vf vf_load_n_f16(const uint16_t *p, size_t n) { return n ? vf_load_f16(p) : 0; }
CK_INLINE void vf_store_n_bf16(uint16_t *p, vf x, size_t n) {
  if (n) vf_store_bf16(p, x);
}
CK_INLINE void vf_store_n_f16(uint16_t *p, vf x, size_t n) {
  if (n) vf_store_f16(p, x);
}
CK_INLINE void vf_transpose(const float *src, size_t src_rs, float *dst, size_t dst_rs) {
  (void)src_rs, (void)dst_rs;
  *dst = *src;
}
