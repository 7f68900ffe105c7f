// Transposes, copies between layouts, reductions of columns, positions of extremes.
#include <stdlib.h>

#include "definitions.h"

void check_transpose(test *t) {
  for (size_t m = 0; m <= 36; m++)
    for (size_t repeat = 0; repeat < 40; repeat++) {
      const size_t n = random_below(t, 37);
      const int place = any_place(t);
      situation(t, place, "m=%zu n=%zu place=%d", m, n, place);
      const operand *x = matrix(t, CK_F32, m, n, stride_for(t, n), 2);
      operand *y = matrix(t, CK_F32, n, m, stride_for(t, m), 2);
      y->written = 1;
      seal(t);
      t->table->f32_transpose(m, n, floats(x), x->rs, floats(y), y->rs);
      check_untouched(t);
      for (size_t i = 0; i < m * n; i++) check_element(t, y, i % n, i / n, element(x, i / n, i % n), 0);
    }
}

// Strides of axes that are laid out in some order, with gaps in some cases. Returns the elements they take.
static size_t lay_out(test *t, const size_t *extents, size_t *strides) {
  size_t order[CK_COPY_RANK], step = 1;
  for (size_t a = 0; a < CK_COPY_RANK; a++) order[a] = a;
  for (size_t a = CK_COPY_RANK; a-- > 1;) {
    const size_t other = one_in(t, 2) ? a : random_below(t, a + 1), held = order[a];
    order[a] = order[other], order[other] = held;
  }
  for (size_t a = CK_COPY_RANK; a-- > 0;) {
    strides[order[a]] = step;
    step *= MAX(extents[order[a]], 1) + (one_in(t, 4) ? random_below(t, 3) : 0);
  }
  return step;
}

typedef struct extents {
  size_t of[CK_COPY_RANK];
} extents;

static size_t offset_of(const size_t *extents, const size_t *strides, size_t item) {
  size_t offset = 0;
  for (size_t a = CK_COPY_RANK; a-- > 0; item /= extents[a]) offset += item % extents[a] * strides[a];
  return offset;
}

static void copy_case(test *t, const void *shape, size_t threads) {
  const size_t *n = ((const extents *)shape)->of;
  const ck_dtype from = any_type(t), to = one_in(t, 3) ? from : any_type(t);
  const int place = any_place(t);
  situation(t, place, "%zux%zux%zux%zu, types %d %d place=%d threads=%zu", n[0], n[1], n[2], n[3], from, to, place, threads);
  ck_copy call = {.x_type = from, .y_type = to};
  size_t count = 1;
  for (size_t a = 0; a < CK_COPY_RANK; a++) call.extents[a] = n[a], count *= n[a];
  const size_t x_size = lay_out(t, n, call.x_strides), y_size = lay_out(t, n, call.y_strides);
  for (size_t a = 0; a < CK_COPY_RANK; a++)
    if (one_in(t, 12)) call.x_strides[a] = 0;
  const operand *x = matrix(t, from, 1, x_size, x_size, 2);
  operand *y = matrix(t, to, 1, y_size, y_size, 2);
  y->written = 1, call.x = x->at, call.y = y->at;
  double *expected = values_of(y);  // what lies between stays
  for (size_t item = 0; item < count; item++)
    expected[offset_of(n, call.y_strides, item)] = rounded(to, element(x, 0, offset_of(n, call.x_strides, item)));
  seal(t);
  ck_copy_run(t->table, &call, threads);
  check_untouched(t);
  for (size_t j = 0; j < y_size; j++) check_element(t, y, 0, j, expected[j], 0);
  free(expected);
}

void check_copy(test *t) {
  for (size_t repeat = 0; repeat < 600; repeat++) {
    extents n;
    for (size_t a = 0; a < CK_COPY_RANK; a++) n.of[a] = one_in(t, 40) ? 0 : one_in(t, 3) ? 1 : 1 + random_below(t, 11);
    check_threads(t, copy_case, &n);
  }
  const extents large[] = {{{1, 1, 130, 150}}, {{3, 70, 2, 65}}, {{1, 1, 2, 17000}}, {{40, 1, 900, 1}}};
  for (size_t repeat = 0; repeat < 8; repeat++)
    for (size_t k = 0; k < COUNT(large); k++) check_threads(t, copy_case, &large[k]);
}

typedef struct columns_case {
  operand *x, *y;
  ck_rows call;
} columns_case;

static columns_case make_columns(test *t, size_t rows, size_t n) {
  columns_case c = {.x = matrix(t, any_type(t), rows, n, stride_for(t, n), 4), .y = matrix(t, any_type(t), 1, n, n, 1)};
  c.y->written = 1;
  c.call = (ck_rows){.rows = rows, .n = n, .x = floats(c.x), .x_rs = c.x->rs, .y = floats(c.y), .x_type = c.x->type};
  c.call.y_type = c.y->type, c.call.variant = (int32_t)random_below(t, CK_LOG_SUM_EXP);
  return c;
}

static void compare_columns(test *t, const columns_case *c) {
  double *column = malloc((c->call.rows + 1) * sizeof *column);
  for (size_t j = 0; j < c->call.n; j++) {
    double error;
    for (size_t i = 0; i < c->call.rows; i++) column[i] = element(c->x, i, j);
    const double expected = reduced((ck_reduction)c->call.variant, column, c->call.rows, &error);
    check_element(t, c->y, 0, j, expected, error);
  }
  free(column);
}

void check_reduce_columns(test *t) {
  for (size_t n = 0; n <= 67; n++)
    for (int place = AT_END; place < PLACES - 1; place += 2) {
      const size_t rows = random_below(t, 50), cut = random_below(t, n + 1);
      situation(t, place, "rows=%zu n=%zu cut at %zu place=%d", rows, n, cut, place);
      const columns_case c = make_columns(t, rows, n);
      seal(t);
      t->table->f32_reduce_columns(&c.call, 0, cut);
      t->table->f32_reduce_columns(&c.call, cut, n);
      check_untouched(t);
      compare_columns(t, &c);
    }
}

static void columns_driver_case(test *t, const void *shape, size_t threads) {
  const size_t *s = shape;
  situation(t, AT_END, "rows=%zu n=%zu threads=%zu", s[0], s[1], threads);
  const columns_case c = make_columns(t, s[0], s[1]);
  seal(t);
  ck_reduce_columns(t->table, &c.call, threads);
  check_untouched(t);
  if (threads == 1) compare_columns(t, &c);
}

void check_reduce_columns_driver(test *t) {
  const size_t shapes[][2] = {{3, 0}, {0, 5}, {129, 128}, {300, 401}, {3000, 3}};
  for (size_t repeat = 0; repeat < 10; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, columns_driver_case, shapes[k]);
}

typedef struct extreme_case {
  operand *x, *y;
  ck_extreme call;
} extreme_case;

// Few different values, so that the first of equal ones is asked for; NaN and infinities in some rows.
static extreme_case make_extreme(test *t, size_t rows, size_t n) {
  extreme_case c = {.x = integers(t, any_type(t), rows, n, stride_for(t, n)), .y = vector(t, rows, 1)};
  for (size_t i = 0; i < rows; i++)
    if (one_in(t, 3)) set_element(c.x, i, random_below(t, n), one_in(t, 2) ? NAN : one_in(t, 2) ? INFINITY : -INFINITY);
  c.y->written = 1;
  c.call = (ck_extreme){.rows = rows, .n = n, .x = c.x->at, .x_rs = c.x->rs, .x_type = c.x->type, .y = c.y->at};
  c.call.least = one_in(t, 2);
  return c;
}

static void compare_extreme(test *t, const extreme_case *c) {
  for (size_t i = 0; i < c->call.rows; i++) {
    size_t best = 0;
    for (size_t j = 1; j < c->call.n && !isnan(element(c->x, i, best)); j++) {
      const double a = element(c->x, i, j), b = element(c->x, i, best);
      if (isnan(a) || (c->call.least ? a < b : a > b)) best = j;
    }
    if (c->call.y[i] != (int32_t)best) fail(t, "row %zu: %d, not %zu", i, c->call.y[i], best);
  }
}

void check_argmax(test *t) {
  for (size_t n = 1; n <= 67; n++)
    for (int place = AT_END; place < PLACES - 1; place++) {
      const size_t rows = random_below(t, 5), cut = random_below(t, rows + 1), columns = one_in(t, 4) ? n * 9 : n;
      situation(t, place, "rows=%zu cut at %zu n=%zu place=%d", rows, cut, columns, place);
      const extreme_case c = make_extreme(t, rows, columns);
      seal(t);
      t->table->f32_argmax(&c.call, 0, cut);
      t->table->f32_argmax(&c.call, cut, rows);
      check_untouched(t);
      compare_extreme(t, &c);
    }
}

static void argmax_driver_case(test *t, const void *shape, size_t threads) {
  const size_t *s = shape;
  situation(t, AT_END, "rows=%zu n=%zu threads=%zu", s[0], s[1], threads);
  const extreme_case c = make_extreme(t, s[0], s[1]);
  seal(t);
  ck_argmax(t->table, &c.call, threads);
  check_untouched(t);
  if (threads == 1) compare_extreme(t, &c);
}

void check_argmax_driver(test *t) {
  const size_t shapes[][2] = {{0, 5}, {3, 1}, {3000, 17}, {5, 9001}};
  for (size_t repeat = 0; repeat < 10; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, argmax_driver_case, shapes[k]);
}
