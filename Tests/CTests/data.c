// Copies between layouts and types, combinations of two operands, reductions, positions of extremes.
#include <stdlib.h>
#include <string.h>

#include "definitions.h"

// One rounding of an exact value.
static void rounded_once(const row *r, size_t j, double y) { r->y[j] = y, r->y_error[j] = U * fabs(y) + 0x1p-149; }

void define_f32_binary(const row *r) {
  for (size_t j = 0; j < r->n; j++) {
    const double a = r->x[j], b = r->other[j];
    const double results[] = {a - b, a / b, MAX(a, b), MIN(a, b)};
    rounded_once(r, j, results[r->call->variant]);
  }
}

void define_f32_clamp(const row *r) {
  for (size_t j = 0; j < r->n; j++) r->y[j] = MIN(MAX(r->x[j], r->call->low), r->call->high), r->y_error[j] = 0;
}

void define_f32_masked_copy(const row *r) {
  for (size_t j = 0; j < r->n; j++) r->y[j] = r->other[j] != 0 ? r->x[j] : r->held[j], r->y_error[j] = 0;
}

void define_f32_lerp(const row *r) {
  const double t = r->call->scale, near = fabs(t) < 0.5 ? t : 1 - t;
  for (size_t j = 0; j < r->n; j++) {
    const double step = r->other[j] - r->x[j];
    r->y[j] = r->x[j] + t * step;
    r->y_error[j] = gamma_of(4) * fabs(near * step) + U * fabs(r->y[j]);
  }
}

// No sum of n terms of f32_reduce and of what uses it is deeper.
static double depth(size_t n) { return 21 + ceil(log2((double)MAX(n, 1))); }

// As slerpBound in Workloads/Data.swift, with the depth of these sums.
void define_f32_slerp(const row *r) {
  double aa = 0, bb = 0, ab = 0;
  for (size_t j = 0; j < r->n; j++) aa += r->x[j] * r->x[j], bb += r->other[j] * r->other[j], ab += r->x[j] * r->other[j];
  const double cosine = ab / sqrt(aa * bb), slack = 2 * gamma_of(depth(r->n) + 2), t = r->call->scale;
  if (!(fabs(cosine) <= 0.9995)) {
    define_f32_lerp(r);
  } else {
    const double angle = acos(cosine), sine = sin(angle), turn = 2 * slack / (sine * sine);
    const double from = sin((1 - t) * angle) / sine, to = sin(t * angle) / sine;
    for (size_t j = 0; j < r->n; j++) {
      const double a = fabs(r->x[j]), b = fabs(r->other[j]);
      r->y[j] = from * r->x[j] + to * r->other[j];
      r->y_error[j] = turn * ((fabs(1 - t) + fabs(from)) * a + (fabs(t) + fabs(to)) * b);
      r->y_error[j] += gamma_of(3) * (fabs(from) * a + fabs(to) * b);
    }
  }
  for (size_t j = 0; fabs(fabs(cosine) - 0.9995) <= slack && j < r->n; j++) r->y_error[j] = INFINITY;  // either way is right
}

void define_f32_cumsum(const row *r) {
  double sum = 0, magnitude = 0;
  for (size_t j = 0; j < r->n; j++) {
    sum += r->x[j], magnitude += fabs(r->x[j]);
    r->y[j] = sum, r->y_error[j] = gamma_of(MIN((double)j, 128 + (double)j / 4096)) * magnitude;
  }
}

// Past the first group of runs, and integers exactly.
void check_long_cumsum(test *t) {
  const size_t lengths[] = {4095, 4096, 4097, 8191, 8256, 20011};
  for (size_t k = 0; k < COUNT(lengths); k++) {
    const size_t n = lengths[k];
    situation(t, AT_END, "n=%zu", n);
    operand *x = integers(t, 2, n, n + 3), *y = matrix(t, CK_F32, 2, n, n, 1);
    const ck_rows call = {.rows = 2, .n = n, .x = floats(x), .x_rs = x->rs, .y = floats(y), .y_rs = y->rs};
    y->written = 1;
    seal(t);
    t->table->f32_cumsum(&call, 0, 2);
    check_untouched(t);
    for (size_t i = 0; i < 2; i++) {
      double sum = 0;
      for (size_t j = 0; j < n; j++) {
        sum += element(x, i, j);
        if (element(y, i, j) != sum) fail(t, "[%zu, %zu] is %.9g, not %.9g", i, j, element(y, i, j), sum);
      }
    }
  }
}

// y[n, m] = x[m, n], at every place and around the sizes of its tiles.
void check_transpose(test *t) {
  const size_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65};
  for (size_t a = 0; a < COUNT(sizes); a++)
    for (size_t b = 0; b < COUNT(sizes); b++) {
      const size_t m = sizes[a], n = sizes[b];
      const int place = (int)random_below(t, PLACES) + AT_END;
      situation(t, place, "m=%zu n=%zu place=%d", m, n, place);
      operand *x = matrix(t, CK_F32, m, n, stride_for(t, n), 2), *y = matrix(t, CK_F32, n, m, stride_for(t, m), 2);
      y->written = 1;
      seal(t);
      t->table->f32_transpose(m, n, floats(x), x->rs, floats(y), y->rs);
      check_untouched(t);
      for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++)
          if (element(y, i, j) != element(x, j, i)) fail(t, "[%zu, %zu] is %.9g", i, j, element(y, i, j));
    }
}

// Memory of these extents with its axes in the order given by `seed`, outermost first, and perhaps room between rows.
static operand *layout(test *t, ck_dtype type, const size_t extents[4], size_t seed, int repeats, size_t strides[4]) {
  size_t order[4] = {0, 1, 2, 3}, step = 1;
  for (size_t a = 3; a > 0; a--) {
    const size_t other = seed % (a + 1), kept = order[a];
    seed /= a + 1;
    order[a] = order[other], order[other] = kept;
  }
  for (size_t a = 4; a-- > 0;) {
    const size_t axis = order[a];
    strides[axis] = step, step = step * extents[axis] + (random_bits(t) % 3 == 0 ? random_below(t, 4) : 0);
    if (repeats && random_bits(t) % 4 == 0) step = strides[axis], strides[axis] = 0;
  }
  size_t span = 1;
  for (size_t a = 0; a < 4; a++) span = extents[a] ? span + (extents[a] - 1) * strides[a] : 0;
  return matrix(t, type, 1, span, span, 4);
}

static void copy_case(test *t, const size_t extents[4], ck_dtype from, ck_dtype to, size_t x_seed, size_t y_seed) {
  const size_t *e = extents, count = e[0] * e[1] * e[2] * e[3];
  const uint64_t seed = random_bits(t);
  void *alone = 0;
  for (size_t k = 0; k < COUNT(thread_counts); k++) {
    t->random = seed;
    situation(t, k ? 1 : AT_END, "[%zu, %zu, %zu, %zu] from %d to %d orders %zu and %zu threads=%zu", e[0], e[1], e[2], e[3],
              from, to, x_seed, y_seed, thread_counts[k]);
    ck_copy call = {.x_type = from, .y_type = to};
    memcpy(call.extents, e, sizeof call.extents);
    operand *x = layout(t, from, e, x_seed, 1, call.x_strides), *y = layout(t, to, e, y_seed, 0, call.y_strides);
    unsigned char *held = bits_of(y);
    call.x = x->at, call.y = y->at, y->written = 1;
    seal(t);
    ck_copy_run(t->table, &call, thread_counts[k]);
    check_untouched(t);
    for (size_t p = 0; count && p < count; p++) {
      size_t rest = p, at = 0, x_at = 0;
      for (size_t a = 4; a-- > 0; rest /= e[a]) at += rest % e[a] * call.y_strides[a], x_at += rest % e[a] * call.x_strides[a];
      if (element(y, 0, at) != rounded(to, element(x, 0, x_at))) fail(t, "element %zu is %.9g", p, element(y, 0, at));
      memcpy(held + at * ck_dtype_size(to), (char *)y->at + at * ck_dtype_size(to), ck_dtype_size(to));
    }
    check_bits(t, y, held, "written between elements");
    free(held);
    if (k)
      check_bits(t, y, alone, "more threads"), free(alone);
    else
      alone = bits_of(y);
  }
}

void check_copy(test *t) {
  const size_t shapes[][4] = {{1, 1, 1, 1},   {1, 1, 0, 5},    {1, 1, 1, 33},  {1, 1, 7, 19},   {2, 3, 4, 5},    {1, 5, 9, 17},
                              {2, 1, 67, 66}, {1, 65, 3, 130}, {3, 70, 1, 64}, {1, 1, 3, 1100}, {1, 1, 129, 257}};
  for (size_t s = 0; s < COUNT(shapes); s++)
    for (int from = 0; from < CK_DTYPE_COUNT; from++)
      for (int to = 0; to < CK_DTYPE_COUNT; to++)
        for (size_t k = 0; k < 8; k++)
          copy_case(t, shapes[s], (ck_dtype)from, (ck_dtype)to, k ? random_below(t, 24) : 23, k > 1 ? random_below(t, 24) : 23);
  const size_t long_row[] = {1, 1, 1, 50001}, wide[] = {1, 3, 190, 130};
  for (int to = 0; to < CK_DTYPE_COUNT; to++) {
    copy_case(t, long_row, CK_F32, (ck_dtype)to, 23, 23);
    copy_case(t, wide, CK_F32, (ck_dtype)to, 5, 23);
  }
}

// The reduction of `count` elements from (i, j) on, along a row or a column of x, and how far from it a kernel may be.
static double reduction(const operand *x, size_t i, size_t j, int down, size_t count, ck_reduction kind, double *error) {
  double sum = 0, size = 0, squares = 0, top = -INFINITY, least = INFINITY, exps = 0;
  for (size_t k = 0; k < count; k++) {
    const double v = down ? element(x, i + k, j) : element(x, i, j + k);
    sum += v, size += fabs(v), squares += v * v, top = MAX(top, v), least = MIN(least, v);
  }
  for (size_t k = 0; k < count; k++) exps += exp((down ? element(x, i + k, j) : element(x, i, j + k)) - top);
  const double n = (double)count, g = gamma_of(depth(count) + 1);
  const double values[] = {sum, sum / n, squares, top, least, count ? top + log(exps) : -INFINITY};
  const double errors[] = {
      g * size, (g + U) * size / n, g * squares, 0, 0, g + (4 + log(n + 1)) * U + n * 0x1p-126 + U * fabs(values[5])};
  *error = isfinite(values[kind]) ? errors[kind] : 0;
  return values[kind];
}

void check_reduce(test *t) {
  for (size_t k = 0; k < 90; k++)
    for (ck_reduction kind = CK_SUM; kind <= CK_LOG_SUM_EXP; kind++) {
      const size_t n = k < 72 ? k : 100 * (k - 71) + k, rows = 1 + k % 3, cut = random_below(t, rows + 1);
      const int place = (int)(k % PLACES) + AT_END;
      situation(t, place, "kind=%d rows=%zu n=%zu place=%d", kind, rows, n, place);
      operand *x = matrix(t, CK_F32, rows, n, stride_for(t, n), 8), *y = matrix(t, CK_F32, rows, 1, 1 + k % 2, 1);
      const ck_rows call = {
          .rows = rows, .n = 1, .x_n = n, .variant = (int32_t)kind, .x = floats(x), .x_rs = x->rs, .y = floats(y), .y_rs = y->rs};
      y->written = 1;
      seal(t);
      t->table->f32_reduce(&call, 0, cut);
      t->table->f32_reduce(&call, cut, rows);
      check_untouched(t);
      for (size_t i = 0; i < rows; i++) {
        double error;
        const double expected = reduction(x, i, 0, 0, n, kind, &error);
        check_element(t, y, i, 0, expected, error);
      }
    }
}

static void columns_case(test *t, ck_dtype from, ck_dtype to, size_t rows, size_t n, ck_reduction kind, int place,
                         size_t threads) {
  situation(t, place, "kind=%d from %d to %d rows=%zu n=%zu place=%d threads=%zu", kind, from, to, rows, n, place, threads);
  operand *x = matrix(t, from, rows, n, stride_for(t, n), 8), *y = matrix(t, to, 1, n, n, 1);
  const ck_rows call = {.rows = rows,
                        .n = n,
                        .variant = (int32_t)kind,
                        .x = floats(x),
                        .x_rs = x->rs,
                        .x_type = from,
                        .y = floats(y),
                        .y_type = to};
  const size_t cut = (n / 128 + 1) / 2 * 128;
  y->written = 1;
  seal(t);
  if (threads) {
    ck_reduce_columns(t->table, &call, threads);
  } else {
    t->table->f32_reduce_columns(&call, 0, MIN(cut, n));
    t->table->f32_reduce_columns(&call, MIN(cut, n), n);
  }
  check_untouched(t);
  for (size_t j = 0; j < n; j++) {
    double error;
    const double expected = reduction(x, 0, j, 1, rows, kind, &error);
    check_element(t, y, 0, j, expected, error);
  }
}

void check_reduce_columns_kernel(test *t) {
  for (ck_reduction kind = CK_SUM; kind <= CK_LOG_SUM_EXP; kind++) {
    for (size_t n = 0; n <= 40; n++) columns_case(t, CK_F32, CK_F32, n * 7 % 50, n, kind, (int)(n % PLACES) + AT_END, 0);
    columns_case(t, CK_F32, CK_F32, 700, 129, kind, AT_END, 0);
    columns_case(t, CK_F32, CK_F32, 3, 390, kind, 5, 0);
  }
}

void check_reduce_columns(test *t) {
  for (ck_reduction kind = CK_SUM; kind <= CK_LOG_SUM_EXP; kind++)
    for (int type = 0; type < CK_DTYPE_COUNT; type++)
      for (int to = 0; to < CK_DTYPE_COUNT; to++)
        for (size_t k = 0; k < COUNT(thread_counts); k++) {
          columns_case(t, (ck_dtype)type, (ck_dtype)to, 33, 37, kind, AT_END, thread_counts[k]);
          columns_case(t, (ck_dtype)type, (ck_dtype)to, 0, 5, kind, 2, thread_counts[k]);
          columns_case(t, (ck_dtype)type, (ck_dtype)to, 70, 641, kind, 1, thread_counts[k]);
        }
}

// Values repeat, so that the first of them counts; some rows hold NaN.
static void argmax_case(test *t, ck_dtype type, size_t rows, size_t n, int least, int place, size_t threads) {
  situation(t, place, "type %d rows=%zu n=%zu least=%d threads=%zu", type, rows, n, least, threads);
  operand *x = matrix(t, type, rows, n, stride_for(t, n), 1);
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < n; j++) {
      set_element(x, i, j, (double)random_below(t, n / 2 + 2) - 3);
      if (i % 3 == 2 && random_below(t, n) == 0) set_element(x, i, j, NAN);
      if (i % 5 == 4) set_element(x, i, j, least ? INFINITY : -INFINITY);
    }
  operand *y = matrix(t, CK_F32, 1, rows, rows, 1);
  const ck_extreme call = {.rows = rows, .n = n, .x = x->at, .x_rs = x->rs, .x_type = type, .least = least, .y = y->at};
  y->written = 1;
  seal(t);
  if (threads)
    ck_argmax(t->table, &call, threads);
  else
    t->table->f32_argmax(&call, 0, rows / 2), t->table->f32_argmax(&call, rows / 2, rows);
  check_untouched(t);
  for (size_t i = 0; i < rows; i++) {
    size_t best = 0;
    for (size_t j = 1; j < n && !isnan(element(x, i, best)); j++) {
      const double v = element(x, i, j), held = element(x, i, best);
      if (isnan(v) || (least ? v < held : v > held)) best = j;
    }
    if (call.y[i] != (int32_t)best) fail(t, "row %zu: %d, not %zu", i, call.y[i], best);
  }
}

void check_argmax_kernel(test *t) {
  for (int least = 0; least < 2; least++)
    for (size_t n = 1; n < 70; n++)
      for (int type = 0; type < CK_DTYPE_COUNT; type++)
        argmax_case(t, (ck_dtype)type, 1 + n % 7, n, least, (int)(n % PLACES) + AT_END, 0);
}

void check_argmax(test *t) {
  const size_t lengths[] = {1, 255, 256, 257, 700, 5000};
  for (int least = 0; least < 2; least++)
    for (int type = 0; type < CK_DTYPE_COUNT; type++)
      for (size_t k = 0; k < COUNT(lengths); k++)
        for (size_t threads = 0; threads < COUNT(thread_counts); threads++)
          argmax_case(t, (ck_dtype)type, 31, lengths[k], least, AT_END, thread_counts[threads]);
}
