// The vector vocabulary on Armv8 NEON: 4 lanes. Names and rules as in vec_avx2.h.
#include <arm_neon.h>

#define VL 4
typedef float32x4_t vf;
typedef uint32x4_t vm;

CK_INLINE vm vf_first(size_t n) {
  const uint32_t lanes[4] = {0, 1, 2, 3};
  return vcltq_u32(vld1q_u32(lanes), vdupq_n_u32((uint32_t)n));
}
CK_INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
CK_INLINE void vf_store(float *p, vf x) { vst1q_f32(p, x); }
CK_INLINE vf vf_load_n(const float *p, size_t n) {
  float t[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < n; i++) t[i] = p[i];
  return vld1q_f32(t);
}
CK_INLINE void vf_store_n(float *p, vf x, size_t n) {
  float t[4];
  vst1q_f32(t, x);
  for (size_t i = 0; i < n; i++) p[i] = t[i];
}
CK_INLINE vf vf_load_2(const float *p) { return vuzp1q_f32(vld1q_f32(p), vld1q_f32(p + 4)); }
CK_INLINE vf vf_gather(const float *p, const int32_t *index) {
  const float t[4] = {p[index[0]], p[index[1]], p[index[2]], p[index[3]]};
  return vld1q_f32(t);
}
CK_INLINE vf vf_set1(float x) { return vdupq_n_f32(x); }
CK_INLINE vf vf_broadcast(const float *p) { return vld1q_dup_f32(p); }
CK_INLINE vf vf_zero(void) { return vdupq_n_f32(0); }
CK_INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
CK_INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
CK_INLINE vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
CK_INLINE vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
CK_INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
CK_INLINE vf vf_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
CK_INLINE vm vf_lt(vf a, vf b) { return vcltq_f32(a, b); }
CK_INLINE vm vf_nan(vf a) { return vmvnq_u32(vceqq_f32(a, a)); }
CK_INLINE uint32_t vf_bits(vm m) {
  const uint32_t bits[4] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(m, vld1q_u32(bits)));
}
CK_INLINE vf vf_clear(vm m, vf a) { return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), m)); }  // m ? 0 : a
CK_INLINE vf vf_select(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
CK_INLINE vf vf_min(vf a, vf b) { return vf_select(vf_lt(a, b), a, b); }
CK_INLINE vf vf_max(vf a, vf b) { return vf_select(vf_lt(b, a), a, b); }
CK_INLINE vf vf_sqrt(vf a) { return vsqrtq_f32(a); }
CK_INLINE vf vf_round(vf a) { return vrndnq_f32(a); }
CK_INLINE vf vf_abs(vf a) { return vabsq_f32(a); }
CK_INLINE vf vf_copysign(vf a, vf s) { return vbslq_f32(vdupq_n_u32(0x80000000u), s, a); }
CK_INLINE vf vf_pow2_(int32x4_t e) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e, vdupq_n_s32(127)), 23)); }
CK_INLINE vf vf_scalef(vf x, vf e) {
  int32x4_t n = vcvtnq_s32_f32(e), half = vshrq_n_s32(n, 1);
  return vf_mul(vf_mul(x, vf_pow2_(half)), vf_pow2_(vsubq_s32(n, half)));
}
CK_INLINE vf vf_shift23(vf a) { return vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(a), 23)); }
CK_INLINE float vf_reduce_add(vf a) { return vaddvq_f32(a); }
CK_INLINE float vf_reduce_max(vf a) { return vmaxvq_f32(a); }
CK_INLINE void vf_unzip(vf a, vf b, vf *even, vf *odd) { *even = vuzp1q_f32(a, b), *odd = vuzp2q_f32(a, b); }
CK_INLINE void vf_zip(vf even, vf odd, vf *a, vf *b) { *a = vzip1q_f32(even, odd), *b = vzip2q_f32(even, odd); }
CK_INLINE uint16x4_t vf_load16_n_(const uint16_t *p, size_t n) {
  uint16_t t[4] = {0};
  memcpy(t, p, n * sizeof *t);
  return vld1_u16(t);
}
CK_INLINE vf vf_from_bf16_(uint16x4_t x) { return vreinterpretq_f32_u32(vshll_n_u16(x, 16)); }
CK_INLINE vf vf_from_f16_(uint16x4_t x) { return vcvt_f32_f16(vreinterpret_f16_u16(x)); }
CK_INLINE uint16x4_t vf_to_bf16_(vf x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
  return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, vorrq_u32(bits, vdupq_n_u32(1u << 22))), 16);
}
CK_INLINE vf vf_load_bf16(const uint16_t *p) { return vf_from_bf16_(vld1_u16(p)); }
CK_INLINE void vf_load_2_bf16(const uint16_t *p, vf *even, vf *odd) {
  const uint32x4_t x = vreinterpretq_u32_u16(vld1q_u16(p));
  *even = vreinterpretq_f32_u32(vshlq_n_u32(x, 16)), *odd = vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xFFFF0000u)));
}
CK_INLINE vf vf_load_n_bf16(const uint16_t *p, size_t n) { return vf_from_bf16_(vf_load16_n_(p, n)); }
CK_INLINE vf vf_load_f16(const uint16_t *p) { return vf_from_f16_(vld1_u16(p)); }
CK_INLINE vf vf_load_n_f16(const uint16_t *p, size_t n) { return vf_from_f16_(vf_load16_n_(p, n)); }
CK_INLINE vf vf_load_s8(const void *p) {
  uint32_t bytes;
  memcpy(&bytes, p, sizeof bytes);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(bytes)))));
}
typedef int32x4_t vi;
CK_INLINE int16x8_t vi_pairs_(vi x) { return vreinterpretq_s16_s32(x); }
CK_INLINE vi vi_set1(int32_t x) { return vdupq_n_s32(x); }
CK_INLINE vi vi_load(const void *p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }
CK_INLINE vi vi_load_s8(const void *p) { return vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p))); }
CK_INLINE vi vi_bits(vi x, int at, int mask) {
  const uint16x8_t moved = vshlq_u16(vreinterpretq_u16_s32(x), vdupq_n_s16((int16_t)-at));
  return vreinterpretq_s32_u16(vandq_u16(moved, vdupq_n_u16((uint16_t)mask)));
}
CK_INLINE vi vi_e2m1(vi x, int at) {
  static const int8_t values[16] = {CK_E2M1};
  const int16x8_t moved = vshlq_s16(vi_pairs_(x), vdupq_n_s16((int16_t)(8 - at)));
  const uint8x16_t high = vreinterpretq_u8_s16(vandq_s16(moved, vdupq_n_s16(15 << 8)));
  return vreinterpretq_s32_s16(vshrq_n_s16(vreinterpretq_s16_s8(vqtbl1q_s8(vld1q_s8(values), high)), 8));
}
CK_INLINE vi vi_e2m1_bytes(vi x) {
  static const int8_t values[16] = {CK_E2M1};
  const int8x16_t table = vaddq_s8(vld1q_s8(values), vdupq_n_s8(12));
  return vreinterpretq_s32_s8(vqtbl1q_s8(table, vreinterpretq_u8_s32(x)));
}
CK_INLINE vi vi_join16(const void *low, const void *high) {
  return vreinterpretq_s32_s16(vcombine_s16(vzip1_s16(vld1_s16(low), vld1_s16(high)), vzip2_s16(vld1_s16(low), vld1_s16(high))));
}
CK_INLINE vi vi_up(vi x, int n) { return vreinterpretq_s32_s16(vshlq_s16(vi_pairs_(x), vdupq_n_s16((int16_t)n))); }
CK_INLINE vi vi_or(vi a, vi b) { return vorrq_s32(a, b); }
CK_INLINE vi vi_dot(vi s, vi a, vi b) {
  const int16x8_t x = vi_pairs_(a), y = vi_pairs_(b);
  return vaddq_s32(s, vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
}
#ifdef CK_DOTPROD
#define VI_FOURS 0
CK_INLINE vi vi_fours(vi x) { return x; }
CK_INLINE vi vi_dot4(vi s, vi a, vi b) { return vdotq_s32(s, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)); }
CK_INLINE vi vi_lane(vi x, size_t i) { return vdupq_n_s32(x[i]); }
#endif
CK_INLINE void vi_pin(vi *x) { __asm__("" : "+w"(*x)); }
CK_INLINE vf vi_float(vi x) { return vcvtq_f32_s32(x); }
CK_INLINE vi vi_s8_even(vi x) { return vreinterpretq_s32_s16(vshrq_n_s16(vshlq_n_s16(vi_pairs_(x), 8), 8)); }
CK_INLINE vi vi_s8_odd(vi x) { return vreinterpretq_s32_s16(vshrq_n_s16(vi_pairs_(x), 8)); }
CK_INLINE void vf_store_s8(int8_t *p, vf x) {
  const int16x4_t pairs = vqmovn_s32(vcvtnq_s32_f32(x));
  const int8x8_t bytes = vqmovn_s16(vcombine_s16(pairs, pairs));
  memcpy(p, &bytes, 4);
}
CK_INLINE void vf_store_s16(int16_t *p, vf x) { vst1_s16(p, vqmovn_s32(vcvtnq_s32_f32(x))); }
CK_INLINE void vf_store_bf16(uint16_t *p, vf x) { vst1_u16(p, vf_to_bf16_(x)); }
CK_INLINE void vf_store_f16(uint16_t *p, vf x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
CK_INLINE void vf_store_n_bf16(uint16_t *p, vf x, size_t n) {
  uint16_t t[4];
  vf_store_bf16(t, x);
  memcpy(p, t, n * sizeof *t);
}
CK_INLINE void vf_store_n_f16(uint16_t *p, vf x, size_t n) {
  uint16_t t[4];
  vf_store_f16(t, x);
  memcpy(p, t, n * sizeof *t);
}
CK_INLINE void vf_transpose(const float *src, size_t src_rs, float *dst, size_t dst_rs) {
  float32x4x2_t a = vtrnq_f32(vf_load(src), vf_load(src + src_rs));
  float32x4x2_t b = vtrnq_f32(vf_load(src + 2 * src_rs), vf_load(src + 3 * src_rs));
  for (int i = 0; i < 2; i++) {
    vf_store(dst + i * dst_rs, vcombine_f32(vget_low_f32(a.val[i]), vget_low_f32(b.val[i])));
    vf_store(dst + (i + 2) * dst_rs, vcombine_f32(vget_high_f32(a.val[i]), vget_high_f32(b.val[i])));
  }
}
