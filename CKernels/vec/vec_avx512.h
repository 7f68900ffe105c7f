// The vector vocabulary on AVX-512: 16 lanes. Names and rules as in vec_avx2.h.
#include <immintrin.h>

#define VL 16
typedef __m512 vf;
typedef __mmask16 vm;

CK_INLINE vm vf_first(size_t n) { return (vm)((1u << n) - 1u); }
CK_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
CK_INLINE void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
CK_INLINE vf vf_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps(vf_first(n), p); }
CK_INLINE void vf_store_n(float *p, vf x, size_t n) { _mm512_mask_storeu_ps(p, vf_first(n), x); }
CK_INLINE vf vf_load_2(const float *p) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return _mm512_permutex2var_ps(_mm512_loadu_ps(p), even, _mm512_loadu_ps(p + 16));
}
CK_INLINE vf vf_gather(const float *p, const int32_t *index) { return _mm512_i32gather_ps(_mm512_loadu_si512(index), p, 4); }
CK_INLINE vf vf_set1(float x) { return _mm512_set1_ps(x); }
CK_INLINE vf vf_broadcast(const float *p) { return _mm512_set1_ps(*p); }
CK_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
CK_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
CK_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
CK_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
CK_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
CK_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
CK_INLINE vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
CK_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
CK_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
CK_INLINE vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
CK_INLINE vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
CK_INLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
CK_INLINE vf vf_copysign(vf a, vf s) { return _mm512_or_ps(vf_abs(a), _mm512_and_ps(_mm512_set1_ps(-0.0f), s)); }
CK_INLINE vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
CK_INLINE vm vf_nan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
CK_INLINE uint32_t vf_bits(vm m) { return m; }
CK_INLINE vf vf_clear(vm m, vf a) { return _mm512_maskz_mov_ps((__mmask16)~m, a); }  // m ? 0 : a
CK_INLINE vf vf_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
CK_INLINE vf vf_scalef(vf x, vf e) { return _mm512_scalef_ps(x, e); }
CK_INLINE vf vf_fraction(vf x) { return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
CK_INLINE vf vf_shift23(vf a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23)); }
CK_INLINE float vf_reduce_add(vf a) { return _mm512_reduce_add_ps(a); }
CK_INLINE float vf_reduce_max(vf a) { return _mm512_reduce_max_ps(a); }
CK_INLINE void vf_unzip(vf a, vf b, vf *even, vf *odd) {
  const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  *even = _mm512_permutex2var_ps(a, e, b);
  *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b);
}
CK_INLINE void vf_zip(vf even, vf odd, vf *a, vf *b) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  *a = _mm512_permutex2var_ps(even, low, odd);
  *b = _mm512_permutex2var_ps(even, _mm512_add_epi32(low, _mm512_set1_epi32(8)), odd);
}
CK_INLINE vf vf_from_bf16_(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
CK_INLINE __m256i vf_to_bf16_(vf x) {
  const __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(1 << 22)), 16));
}
CK_INLINE vf vf_load_bf16(const uint16_t *p) { return vf_from_bf16_(_mm256_loadu_si256((const __m256i *)p)); }
CK_INLINE void vf_load_2_bf16(const uint16_t *p, vf *even, vf *odd) {
  const __m512i x = _mm512_loadu_si512(p);
  *even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
  *odd = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xFFFF0000)));
}
CK_INLINE vf vf_load_n_bf16(const uint16_t *p, size_t n) { return vf_from_bf16_(_mm256_maskz_loadu_epi16(vf_first(n), p)); }
CK_INLINE vf vf_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
CK_INLINE vf vf_load_n_f16(const uint16_t *p, size_t n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vf_first(n), p)); }
CK_INLINE vf vf_load_s8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))); }
typedef __m512i vi;
CK_INLINE vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
CK_INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
CK_INLINE vi vi_load_n16(const uint16_t *p, size_t n) { return _mm512_maskz_loadu_epi16((__mmask32)(((uint64_t)1 << n) - 1), p); }
CK_INLINE void vi_store(void *p, vi x) { _mm512_storeu_si512(p, x); }
CK_INLINE vi vi_load_s8(const void *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256(p)); }
CK_INLINE vi vi_bits(vi x, int at, int mask) {
  return _mm512_and_si512(_mm512_srli_epi16(x, (unsigned)at), _mm512_set1_epi16((short)mask));
}
CK_INLINE vi vi_e2m1(vi x, int at) {
  const __m512i moved = at < 8 ? _mm512_slli_epi16(x, (unsigned)(8 - at)) : _mm512_srli_epi16(x, (unsigned)(at - 8));
  const __m512i high = _mm512_and_si512(moved, _mm512_set1_epi16(15 << 8));
  return _mm512_srai_epi16(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_setr_epi8(CK_E2M1)), high), 8);
}
CK_INLINE vi vi_e2m1_bytes(vi x) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_add_epi8(_mm_setr_epi8(CK_E2M1), _mm_set1_epi8(12))), x);
}
CK_INLINE vi vi_join16(const void *low, const void *high) {
  const __m512i above = _mm512_cvtepu16_epi32(_mm256_loadu_si256(high));
  return _mm512_or_si512(_mm512_cvtepu16_epi32(_mm256_loadu_si256(low)), _mm512_slli_epi32(above, 16));
}
CK_INLINE vi vi_up(vi x, int n) { return _mm512_slli_epi16(x, (unsigned)n); }
CK_INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
#ifdef CK_VNNI
// Clang makes two instructions of the intrinsic, for a shorter chain that no kernel here needs.
CK_INLINE vi vi_dot(vi s, vi a, vi b) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(s) : "v"(a), "v"(b));
  return s;
}
#define VI_FOURS 128
CK_INLINE vi vi_fours(vi x) { return _mm512_xor_si512(x, _mm512_set1_epi8(-128)); }
CK_INLINE vi vi_dot4(vi s, vi a, vi b) { return _mm512_dpbusd_epi32(s, a, b); }
#else
CK_INLINE vi vi_dot(vi s, vi a, vi b) { return _mm512_add_epi32(s, _mm512_madd_epi16(a, b)); }
#define VI_SMALL_FOURS
CK_INLINE vi vi_dot_small(vi s, vi a, vi b, vi c, vi d) {
  return vi_dot(s, _mm512_add_epi16(_mm512_maddubs_epi16(a, b), _mm512_maddubs_epi16(c, d)), _mm512_set1_epi16(1));
}
#endif
CK_INLINE void vi_pin(vi *x) { __asm__("" : "+v"(*x)); }
CK_INLINE vf vi_float(vi x) { return _mm512_cvtepi32_ps(x); }
CK_INLINE vi vi_s8_even(vi x) { return _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8); }
CK_INLINE vi vi_s8_odd(vi x) { return _mm512_srai_epi16(x, 8); }
CK_INLINE void vf_store_s8(int8_t *p, vf x) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))); }
CK_INLINE void vf_store_s16(int16_t *p, vf x) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x))); }
#define VI_ZIP16
CK_INLINE void vi_zip16(vi a, vi b, vi *first, vi *second) {
  const __m512i low = _mm512_add_epi16(
      _mm512_set1_epi32(32 << 16),
      _mm512_mullo_epi32(_mm512_set1_epi32(0x10001), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
  *first = _mm512_permutex2var_epi16(a, low, b);
  *second = _mm512_permutex2var_epi16(a, _mm512_add_epi16(low, _mm512_set1_epi16(16)), b);
}
#if TILES_PAY == CK_TILES_DOT
CK_INLINE vf vf_dot_bf16(vf s, vi a, vi b) { return _mm512_dpbf16_ps(s, (__m512bh)a, (__m512bh)b); }
#endif
#if TILES_PAY
CK_INLINE void vf_store_bf16_flushed(uint16_t *p, vf x) { _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(x)); }
#endif
CK_INLINE void vf_store_bf16(uint16_t *p, vf x) { _mm256_storeu_si256((__m256i *)p, vf_to_bf16_(x)); }
CK_INLINE void vf_store_n_bf16(uint16_t *p, vf x, size_t n) { _mm256_mask_storeu_epi16(p, vf_first(n), vf_to_bf16_(x)); }
CK_INLINE void vf_store_f16(uint16_t *p, vf x) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
CK_INLINE void vf_store_n_f16(uint16_t *p, vf x, size_t n) {
  _mm256_mask_storeu_epi16(p, vf_first(n), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
// Four 4x4 transposes a quarter, then the quarters: dst[c * dst_rs + r] = src[r * src_rs + c].
CK_INLINE void vf_transpose(const float *src, size_t src_rs, float *dst, size_t dst_rs) {
  for (int q = 0; q < 4; q++) {  // columns 4q ... 4q + 3 of all 16 rows
    __m512 r[4];
    for (int i = 0; i < 4; i++) {
      const float *p = src + (size_t)i * src_rs + 4 * q;
      r[i] = _mm512_castps128_ps512(_mm_loadu_ps(p));
      r[i] = _mm512_insertf32x4(r[i], _mm_loadu_ps(p + 4 * src_rs), 1);
      r[i] = _mm512_insertf32x4(r[i], _mm_loadu_ps(p + 8 * src_rs), 2);
      r[i] = _mm512_insertf32x4(r[i], _mm_loadu_ps(p + 12 * src_rs), 3);
    }
    __m512 a = _mm512_unpacklo_ps(r[0], r[1]), b = _mm512_unpackhi_ps(r[0], r[1]);
    __m512 c = _mm512_unpacklo_ps(r[2], r[3]), d = _mm512_unpackhi_ps(r[2], r[3]);
    float *o = dst + (size_t)(4 * q) * dst_rs;
    vf_store(o, _mm512_shuffle_ps(a, c, 0x44));
    vf_store(o + dst_rs, _mm512_shuffle_ps(a, c, 0xEE));
    vf_store(o + 2 * dst_rs, _mm512_shuffle_ps(b, d, 0x44));
    vf_store(o + 3 * dst_rs, _mm512_shuffle_ps(b, d, 0xEE));
  }
}
