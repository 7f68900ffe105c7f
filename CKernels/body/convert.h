// Storage types. Widening is exact; narrowing rounds to nearest even, overflows to infinity and keeps NaN.

// Elements [at, at + lanes) of x, stored as `type`; a constant type leaves one load.
CK_INLINE vf row_load_as_(ck_dtype type, const void *x, size_t at, size_t lanes) {
  if (type == CK_I8) {
    int8_t codes[VL] = {0};
    if (lanes == VL) return vf_load_s8((const int8_t *)x + at);
    memcpy(codes, (const int8_t *)x + at, lanes);
    return vf_load_s8(codes);
  }
  const uint16_t *half = (const uint16_t *)x + at;
  if (type == CK_BF16) return lanes == VL ? vf_load_bf16(half) : vf_load_n_bf16(half, lanes);
  if (type == CK_F16) return lanes == VL ? vf_load_f16(half) : vf_load_n_f16(half, lanes);
  return row_load_((const float *)x + at, lanes);
}

CK_INLINE void row_store_as_(ck_dtype type, void *y, size_t at, vf x, size_t lanes) {
  uint16_t *half = (uint16_t *)y + at;
  if (type == CK_F32) row_store_((float *)y + at, x, lanes);
  if (type == CK_BF16 && lanes == VL) vf_store_bf16(half, x);
  if (type == CK_BF16 && lanes != VL) vf_store_n_bf16(half, x, lanes);
  if (type == CK_F16 && lanes == VL) vf_store_f16(half, x);
  if (type == CK_F16 && lanes != VL) vf_store_n_f16(half, x, lanes);
}

// Every type has its own loop: CK_WITH_DTYPE(type, f, ...) calls f(constant type, ...).
#define CK_WITH_DTYPE(type, f, ...) \
  do {                              \
    if (type == CK_BF16)            \
      f(CK_BF16, __VA_ARGS__);      \
    else if (type == CK_F16)        \
      f(CK_F16, __VA_ARGS__);       \
    else                            \
      f(CK_F32, __VA_ARGS__);       \
  } while (0)

CK_INLINE void widen_(const ck_dtype type, size_t n, const void *x, float *y) {
#define STEP(j, lanes) row_store_(y + j, row_load_as_(type, x, j, lanes), lanes);
  ROW_COLUMNS_(n, STEP);
#undef STEP
}
void CK_NAME(f32_widen)(ck_dtype type, size_t n, const void *x, float *y) { CK_WITH_DTYPE(type, widen_, n, x, y); }

CK_INLINE void narrow_(const ck_dtype type, size_t n, const float *x, void *y) {
#define STEP(j, lanes) row_store_as_(type, y, j, row_load_(x + j, lanes), lanes);
  ROW_COLUMNS_(n, STEP);
#undef STEP
}
void CK_NAME(f32_narrow)(ck_dtype type, size_t n, const float *x, void *y) { CK_WITH_DTYPE(type, narrow_, n, x, y); }
