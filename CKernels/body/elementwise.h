// Element-wise rows: y = act(scale x + bias) + other and its parts. Loop order: rows, then columns VL at a time.
// One rounding an operation: scale x + bias is one fused step where the ISA has one.

CK_INLINE void epilogue_rows_(const ck_activation kind, const ck_rows *call, size_t first, size_t last) {
  const vf scale = vf_set1(call->scale);
  const float *bias = call->bias;
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs, *other = call->other ? call->other + i * call->other_rs : 0;  // [n]
    float *y = call->y + i * call->y_rs;
#define STEP(j, lanes)                                                        \
  vf s = row_load_(x + j, lanes);                                             \
  s = bias ? vf_fma(scale, s, row_load_(bias + j, lanes)) : vf_mul(scale, s); \
  s = ck_activate_(s, kind);                                                  \
  if (other) s = vf_add(s, row_load_(other + j, lanes));                      \
  row_store_(y + j, s, lanes);
    ROW_COLUMNS_(call->n, STEP);
#undef STEP
  }
}
void CK_NAME(f32_epilogue)(const ck_rows *call, size_t first, size_t last) {
  CK_WITH_ACTIVATION(call->activation, epilogue_rows_, call, first, last);
}

CK_INLINE void activation_rows_(const ck_activation kind, const ck_rows *call, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs;  // [n]
    float *y = call->y + i * call->y_rs;
#define STEP(j, lanes) row_store_(y + j, ck_activate_(row_load_(x + j, lanes), kind), lanes);
    ROW_COLUMNS_(call->n, STEP);
#undef STEP
  }
}
void CK_NAME(f32_activation)(const ck_rows *call, size_t first, size_t last) {
  CK_WITH_ACTIVATION(call->activation, activation_rows_, call, first, last);
}

// y = f(x, other).
CK_INLINE void pair_rows_(vf (*const f)(vf, vf), const ck_rows *call, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs, *other = call->other + i * call->other_rs;  // [n]
    float *y = call->y + i * call->y_rs;
#define STEP(j, lanes) row_store_(y + j, f(row_load_(x + j, lanes), row_load_(other + j, lanes)), lanes);
    ROW_COLUMNS_(call->n, STEP);
#undef STEP
  }
}
void CK_NAME(f32_add)(const ck_rows *call, size_t first, size_t last) { pair_rows_(vf_add, call, first, last); }
void CK_NAME(f32_mul)(const ck_rows *call, size_t first, size_t last) { pair_rows_(vf_mul, call, first, last); }

void CK_NAME(f32_scale)(const ck_rows *call, size_t first, size_t last) {
  const vf scale = vf_set1(call->scale);
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs;  // [n]
    float *y = call->y + i * call->y_rs;
#define STEP(j, lanes) row_store_(y + j, vf_mul(scale, row_load_(x + j, lanes)), lanes);
    ROW_COLUMNS_(call->n, STEP);
#undef STEP
  }
}

// y = f(x) for functions that are no activation.
CK_INLINE void function_rows_(vf (*const f)(vf), const ck_rows *call, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs;  // [n]
    float *y = call->y + i * call->y_rs;
#define STEP(j, lanes) row_store_(y + j, f(row_load_(x + j, lanes)), lanes);
    ROW_COLUMNS_(call->n, STEP);
#undef STEP
  }
}
void CK_NAME(f32_exp)(const ck_rows *call, size_t first, size_t last) { function_rows_(vf_exp_, call, first, last); }
void CK_NAME(f32_erf)(const ck_rows *call, size_t first, size_t last) { function_rows_(vf_erf_, call, first, last); }
void CK_NAME(f32_softplus)(const ck_rows *call, size_t first, size_t last) { function_rows_(vf_softplus_, call, first, last); }

// x^power by squaring from the exponent's top bit: no partial power is farther from 1 than the result.
CK_INLINE vf repu_(vf x, size_t power, size_t top) {
  x = vf_relu_(x);
  vf y = x;
  for (size_t bit = top; bit; bit >>= 1) {
    y = vf_mul(y, y);
    if (power & bit) y = vf_mul(y, x);
  }
  return y;
}
void CK_NAME(f32_repu)(const ck_rows *call, size_t first, size_t last) {
  const size_t power = call->power;
  size_t top = 1;  // the bit below the exponent's highest
  while (top <= power / 2) top *= 2;
  top /= 2;
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs;  // [n]
    float *y = call->y + i * call->y_rs;
#define STEP(j, lanes) row_store_(y + j, repu_(row_load_(x + j, lanes), power, top), lanes);
    ROW_COLUMNS_(call->n, STEP);
#undef STEP
  }
}

CK_INLINE void gated_rows_(const ck_activation kind, const ck_rows *call, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    const float *x = call->x + i * call->x_rs, *other = call->other + i * call->other_rs;  // [n]
    float *y = call->y + i * call->y_rs;
#define STEP(j, lanes) row_store_(y + j, vf_mul(ck_activate_(row_load_(x + j, lanes), kind), row_load_(other + j, lanes)), lanes);
    ROW_COLUMNS_(call->n, STEP);
#undef STEP
  }
}
void CK_NAME(f32_gated)(const ck_rows *call, size_t first, size_t last) {
  CK_WITH_ACTIVATION(call->activation, gated_rows_, call, first, last);
}
