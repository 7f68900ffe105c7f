// The vector vocabulary on AVX2 + FMA: 8 lanes. Every vec_*.h defines the same names; bodies use nothing else.
//   vf, vm           a vector of VL floats; a lane mask
//   *_n(p, n)        touches only the first n of VL lanes, n in 0 ... VL; a load fills the others with zeros
//   vf_min, vf_max   return the SECOND operand where either is NaN, as the x86 instructions do
//   vf_scalef(x, e)  x * 2^e for integral e in [-252, 254], one rounding into the denormals at most
//   vf_shift23(a)    the float whose bits are those of a, 23 places up
//   vf_unzip, vf_zip the elements of a, b at even and at odd places, in order; and back
//   vf_nan(x)        where x is NaN
//   vf_load_2(p)     p[0], p[2], p[4], ...: reads 2 VL elements
//   vf_gather(p, i)  p[i[0]], p[i[1]], ...: reads VL indices
//   vf_load_s8(p)    VL int8
//   vi               2 VL int16, as VL pairs; or VL int32
//   vi_load_s8(p)    2 VL int8; vi_bits(x, at, mask) bits from `at` on of each int16; vi_up(x, n) n places up
//   vi_e2m1(x, at)   twice the values of the 4-bit floats from bit `at` on of each int16
//   vi_e2m1_bytes(x) twelve more than those of each byte
//   vi_join16(p, q)  VL int16 from p as the lower halves of lanes, and from q as the upper ones
//   vi_dot(s, a, b)  int32 lane i of s, + the products of pair i of a and b
//   VI_FOURS         with CK_VNNI, CK_DOTPROD: what vi_fours(x) adds to each int8 of x; they are uint8 where it is 128
//   vi_dot4(s, a, b) with VI_FOURS: int32 lane i of s, + the products of four i of a, as vi_fours made it, and b, int8
//   VI_SMALL_FOURS   where there is vi_dot_small(s, a, b, c, d): s, + fours of a times b, and c times d; a and c 0 to 64
//   vi_lane(x, i)    with CK_DOTPROD: int32 lane i of x in every lane, at no cost within vi_dot4
//   vi_pin(x)        x as it is: what made it is not regrouped with what follows
//   vf_dot_bf16      with CK_TILES_DOT: lane i of s, + the products of pair i of a and b, bf16, the second first
//   VI_ZIP16         where there are vi_store, vi_load_n16(p, n) and vi_zip16: elements of 16 bits of a and b in turn, as two
//                    vectors; and vf_fraction(x), x less its floor, 0 at infinities
//   vi_float(x)      the int32 lanes of x as floats
//   vi_s8_even, _odd of 4 VL int8 those at even places, or at odd ones, as int16
//   vf_store_s16, _s8  to the nearest integer, ties to even; x is within the type's range
//   vf_load_2_bf16   2 VL bf16: those at even places and those at odd ones
//   *_bf16, *_f16    the same from or to 16-bit elements; stores round to nearest even, NaN stays NaN
#include <immintrin.h>

#define VL 8
typedef __m256 vf;
typedef __m256 vm;

CK_INLINE __m256i vf_lanes_(size_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
CK_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
CK_INLINE void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
CK_INLINE vf vf_load_n(const float *p, size_t n) { return _mm256_maskload_ps(p, vf_lanes_(n)); }
CK_INLINE void vf_store_n(float *p, vf x, size_t n) { _mm256_maskstore_ps(p, vf_lanes_(n), x); }
CK_INLINE vf vf_load_2(const float *p) {
  const __m256 even = _mm256_shuffle_ps(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8), 0x88);
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(even), 0xD8));
}
CK_INLINE vf vf_gather(const float *p, const int32_t *index) {
  return _mm256_i32gather_ps(p, _mm256_loadu_si256((const __m256i *)index), 4);
}
CK_INLINE vf vf_set1(float x) { return _mm256_set1_ps(x); }
CK_INLINE vf vf_broadcast(const float *p) { return _mm256_broadcast_ss(p); }
CK_INLINE vf vf_zero(void) { return _mm256_setzero_ps(); }
CK_INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
CK_INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
CK_INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
CK_INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
CK_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }  // a b + c
CK_INLINE vf vf_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a b
CK_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
CK_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
CK_INLINE vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
CK_INLINE vf vf_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
CK_INLINE vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
CK_INLINE vf vf_copysign(vf a, vf s) { return _mm256_or_ps(vf_abs(a), _mm256_and_ps(_mm256_set1_ps(-0.0f), s)); }
CK_INLINE vm vf_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }  // false on NaN
CK_INLINE vm vf_nan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
CK_INLINE vm vf_first(size_t n) { return _mm256_castsi256_ps(vf_lanes_(n)); }
CK_INLINE uint32_t vf_bits(vm m) { return (uint32_t)_mm256_movemask_ps(m); }  // bit i: lane i
CK_INLINE vf vf_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }  // m ? a : b
CK_INLINE vf vf_clear(vm m, vf a) { return _mm256_andnot_ps(m, a); }  // m ? 0 : a
CK_INLINE vf vf_pow2_(__m256i e) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
}
CK_INLINE vf vf_scalef(vf x, vf e) {
  __m256i n = _mm256_cvtps_epi32(e), half = _mm256_srai_epi32(n, 1);
  return vf_mul(vf_mul(x, vf_pow2_(half)), vf_pow2_(_mm256_sub_epi32(n, half)));
}
CK_INLINE vf vf_shift23(vf a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23)); }
CK_INLINE float vf_reduce_add(vf a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
CK_INLINE float vf_reduce_max(vf a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
CK_INLINE void vf_unzip(vf a, vf b, vf *even, vf *odd) {
  const __m256d e = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88)), o = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xDD));
  *even = _mm256_castpd_ps(_mm256_permute4x64_pd(e, 0xD8)), *odd = _mm256_castpd_ps(_mm256_permute4x64_pd(o, 0xD8));
}
CK_INLINE void vf_zip(vf even, vf odd, vf *a, vf *b) {
  const vf low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
  *a = _mm256_permute2f128_ps(low, high, 0x20), *b = _mm256_permute2f128_ps(low, high, 0x31);
}
CK_INLINE __m128i vf_load16_n_(const uint16_t *p, size_t n) {
  uint16_t t[8] = {0};
  memcpy(t, p, n * sizeof *t);
  return _mm_loadu_si128((const __m128i *)t);
}
CK_INLINE vf vf_from_bf16_(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
CK_INLINE __m128i vf_to_bf16_(vf x) {
  const __m256i bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(1 << 22));
  const vf top = vf_select(_mm256_cmp_ps(x, x, _CMP_UNORD_Q), _mm256_castsi256_ps(quiet), _mm256_castsi256_ps(rounded));
  const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(top), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
CK_INLINE vf vf_load_bf16(const uint16_t *p) { return vf_from_bf16_(_mm_loadu_si128((const __m128i *)p)); }
CK_INLINE vf vf_load_n_bf16(const uint16_t *p, size_t n) { return vf_from_bf16_(vf_load16_n_(p, n)); }
CK_INLINE void vf_load_2_bf16(const uint16_t *p, vf *even, vf *odd) {
  const __m256i x = _mm256_loadu_si256((const __m256i *)p);
  *even = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
  *odd = _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int)0xFFFF0000)));
}
CK_INLINE vf vf_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
CK_INLINE vf vf_load_n_f16(const uint16_t *p, size_t n) { return _mm256_cvtph_ps(vf_load16_n_(p, n)); }
CK_INLINE vf vf_load_s8(const void *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p))); }
typedef __m256i vi;
CK_INLINE vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
CK_INLINE vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
CK_INLINE vi vi_load_s8(const void *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128(p)); }
CK_INLINE vi vi_bits(vi x, int at, int mask) {
  return _mm256_and_si256(_mm256_srli_epi16(x, at), _mm256_set1_epi16((short)mask));
}
CK_INLINE vi vi_e2m1(vi x, int at) {
  const __m256i high =
      _mm256_and_si256(at < 8 ? _mm256_slli_epi16(x, 8 - at) : _mm256_srli_epi16(x, at - 8), _mm256_set1_epi16(15 << 8));
  return _mm256_srai_epi16(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_setr_epi8(CK_E2M1)), high), 8);
}
CK_INLINE vi vi_e2m1_bytes(vi x) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_add_epi8(_mm_setr_epi8(CK_E2M1), _mm_set1_epi8(12))), x);
}
CK_INLINE vi vi_join16(const void *low, const void *high) {
  const __m256i above = _mm256_cvtepu16_epi32(_mm_loadu_si128(high));
  return _mm256_or_si256(_mm256_cvtepu16_epi32(_mm_loadu_si128(low)), _mm256_slli_epi32(above, 16));
}
CK_INLINE vi vi_up(vi x, int n) { return _mm256_slli_epi16(x, n); }
CK_INLINE vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
#ifdef CK_VNNI
// Clang makes two instructions of the intrinsic, for a shorter chain that no kernel here needs.
CK_INLINE vi vi_dot(vi s, vi a, vi b) {
  __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(s) : "x"(a), "x"(b));
  return s;
}
#define VI_FOURS 128
CK_INLINE vi vi_fours(vi x) { return _mm256_xor_si256(x, _mm256_set1_epi8(-128)); }
CK_INLINE vi vi_dot4(vi s, vi a, vi b) { return _mm256_dpbusd_avx_epi32(s, a, b); }
#else
CK_INLINE vi vi_dot(vi s, vi a, vi b) { return _mm256_add_epi32(s, _mm256_madd_epi16(a, b)); }
#define VI_SMALL_FOURS
CK_INLINE vi vi_dot_small(vi s, vi a, vi b, vi c, vi d) {
  return vi_dot(s, _mm256_add_epi16(_mm256_maddubs_epi16(a, b), _mm256_maddubs_epi16(c, d)), _mm256_set1_epi16(1));
}
#endif
CK_INLINE void vi_pin(vi *x) { __asm__("" : "+x"(*x)); }
CK_INLINE vf vi_float(vi x) { return _mm256_cvtepi32_ps(x); }
CK_INLINE vi vi_s8_even(vi x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
CK_INLINE vi vi_s8_odd(vi x) { return _mm256_srai_epi16(x, 8); }
CK_INLINE void vf_store_s8(int8_t *p, vf x) {
  const __m256i i = _mm256_cvtps_epi32(x);
  const __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
  _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(pairs, pairs));
}
CK_INLINE void vf_store_s16(int16_t *p, vf x) {
  const __m256i i = _mm256_cvtps_epi32(x);
  _mm_storeu_si128((__m128i *)p, _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1)));
}
CK_INLINE void vf_store_bf16(uint16_t *p, vf x) { _mm_storeu_si128((__m128i *)p, vf_to_bf16_(x)); }
CK_INLINE void vf_store_f16(uint16_t *p, vf x) { _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
CK_INLINE void vf_store_n_bf16(uint16_t *p, vf x, size_t n) {
  uint16_t t[8];
  vf_store_bf16(t, x);
  memcpy(p, t, n * sizeof *t);
}
CK_INLINE void vf_store_n_f16(uint16_t *p, vf x, size_t n) {
  uint16_t t[8];
  vf_store_f16(t, x);
  memcpy(p, t, n * sizeof *t);
}
// dst[c * dst_rs + r] = src[r * src_rs + c] for r, c < VL.
CK_INLINE void vf_transpose(const float *src, size_t src_rs, float *dst, size_t dst_rs) {
  __m256 r[8], t[8];
  for (int i = 0; i < 4; i++) {
    r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(src + i * src_rs)), _mm_loadu_ps(src + (i + 4) * src_rs), 1);
    r[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(src + i * src_rs + 4)),
                                    _mm_loadu_ps(src + (i + 4) * src_rs + 4), 1);
  }
  for (int i = 0; i < 8; i += 4) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    t[i + 2] = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
    t[i + 3] = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    vf_store(dst + (i + 0) * dst_rs, _mm256_shuffle_ps(t[i], t[i + 2], 0x44));
    vf_store(dst + (i + 1) * dst_rs, _mm256_shuffle_ps(t[i], t[i + 2], 0xEE));
    vf_store(dst + (i + 2) * dst_rs, _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44));
    vf_store(dst + (i + 3) * dst_rs, _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE));
  }
}
