// Spherical interpolation of rows, as diffusion code has it: y = sin((1 - t) w)/sin w x + sin(t w)/sin w other, w the angle
// between them. Rows that are nearly parallel, |cos w| > SLERP_PARALLEL_, or zero, are interpolated in a straight line.
#define SLERP_PARALLEL_ 0.9995

void CK_NAME(f32_slerp)(const ck_rows *call, size_t first, size_t last) {
  const size_t n = call->n;
  const double t = call->scale;
  for (size_t i = first; i < last; i++) {
    const float *a = call->x + i * call->x_rs, *b = call->other + i * call->other_rs;  // [n]
    float *y = call->y + i * call->y_rs;
    const double squares = (double)reduce_row_(REDUCE_SQUARES_, a, 0, 0, n) * reduce_row_(REDUCE_SQUARES_, b, 0, 0, n);
    const double cosine = reduce_row_(REDUCE_PRODUCTS_, a, b, 0, n) / sqrt(squares);
    if (!(fabs(cosine) <= SLERP_PARALLEL_)) {
      lerp_row_(a, b, call->scale, y, n);
      continue;
    }
    const double angle = acos(cosine), sine = sin(angle);
    const vf from = vf_set1((float)(sin((1 - t) * angle) / sine)), to = vf_set1((float)(sin(t * angle) / sine));
#define STEP(j, lanes) row_store_(y + j, vf_fma(to, row_load_(b + j, lanes), vf_mul(from, row_load_(a + j, lanes))), lanes);
    ROW_COLUMNS_(n, STEP);
#undef STEP
  }
}
