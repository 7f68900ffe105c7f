// Runs a row kernel over lengths, places, storage types and threads, and compares each element with its definition in double.
#include "rows.h"

#include <stdlib.h>
#include <string.h>

enum { TABLE_ROWS = 11, MOST_SEGMENT = 5 };

// A call and its operands; the values are read before the kernel runs, as it may overwrite its input.
typedef struct rows_case {
  operand *x, *other, *weight, *bias, *y, *z;
  int32_t *index;
  double *x_values, *other_values, *weight_values, *bias_values, *held_values;
} rows_case;

// CK_DTYPE_COUNT stands for any type, another one for each operand.
static ck_dtype type_of(test *t, ck_dtype type) { return type == CK_DTYPE_COUNT ? any_type(t) : type; }

static operand *maybe(test *t, int32_t fields, int32_t always, int32_t sometimes, ck_dtype type, size_t rows, size_t n) {
  const size_t rs = rows > 1 ? stride_for(t, n) : n;
  return fields & always || (fields & sometimes && random_bits(t) & 1) ? matrix(t, type_of(t, type), rows, n, rs, 2) : 0;
}

static ck_rows make_call(test *t, int32_t fields, ck_dtype type, size_t rows, size_t n, rows_case *c) {
  const size_t x_n = n, y_n = fields & REDUCES ? 1 : n;
  size_t x_rows = fields & TABLE ? TABLE_ROWS : rows;
  ck_rows call = {.rows = rows, .n = y_n, .x_n = x_n, .scale = 1, .diagonal = CK_NO_DIAGONAL};
  c->index = 0;
  if (fields & TABLE) {
    c->index = indices(t, rows);
    for (size_t i = 0; i < rows; i++) c->index[i] = (int32_t)random_below(t, TABLE_ROWS);
  }
  if (fields & SEGMENTS) {
    c->index = indices(t, rows + 1);
    for (size_t i = 0; i < rows; i++) c->index[i + 1] = c->index[i] + (int32_t)random_below(t, MOST_SEGMENT + 1);
    x_rows = (size_t)c->index[rows];
  }
  const int one = fields & ONE_ROW && random_bits(t) & 1;
  c->x = matrix(t, type_of(t, type), x_rows, x_n, stride_for(t, x_n), 4);
  c->other = maybe(t, fields, OTHER, MAYBE_OTHER, type, one ? 1 : rows, n);
  c->weight = maybe(t, fields, 0, MAYBE_WEIGHT, CK_F32, 1, n);
  c->bias = maybe(t, fields, 0, MAYBE_BIAS, CK_F32, 1, n);
  const int in_place = fields & IN_PLACE && random_bits(t) & 1;
  c->y = in_place ? c->x : matrix(t, type_of(t, type), rows, y_n, stride_for(t, y_n), 2);
  c->z = 0;
  if (fields & SECOND && c->other && one_in(t, 2)) {
    const size_t choice = random_below(t, in_place ? 2 : 3);
    c->z = choice == 0 ? matrix(t, type_of(t, type), rows, n, stride_for(t, n), 2) : choice == 1 ? c->other : c->x;
  }
  c->y->written = 1;
  if (c->z) c->z->written = 1;
  if (fields & SCALE) call.scale = (float)random_in(t, -2, 2);
  if (fields & EPSILON) call.epsilon = random_bits(t) & 1 ? 1e-5f : 1e-12f;
  if (fields & ACTIVATION) call.activation = (ck_activation)random_below(t, CK_ACTIVATION_COUNT);
  if (fields & DIAGONAL && random_bits(t) & 1) call.diagonal = (ptrdiff_t)random_below(t, n + 4) - 3;
  if (fields & POWER) call.power = 1 + random_below(t, 9);
  if (fields & VARIANT) call.variant = (int32_t)random_below(t, fields & REDUCES ? CK_LOG_SUM_EXP + 1 : CK_MINIMUM + 1);
  if (fields & BOUNDS) call.low = (float)random_in(t, -3, 1), call.high = call.low + (float)random_in(t, 0, 3);
  for (size_t e = 0; fields & MASKS && e < c->other->rows * n / 2; e++)
    set_element(c->other, random_below(t, c->other->rows), random_below(t, n), 0);
  call.accumulate = fields & MASKS || (fields & ACCUMULATE && random_bits(t) & 1);
  call.index = c->index;
  call.x = floats(c->x), call.x_rs = c->x->rs;
  call.other = floats(c->other), call.other_rs = c->other && !one ? c->other->rs : 0;
  call.weight = floats(c->weight), call.bias = floats(c->bias);
  call.y = floats(c->y), call.y_rs = c->y->rs;
  call.z = floats(c->z), call.z_rs = c->z ? c->z->rs : 0;
  call.x_type = c->x->type, call.y_type = c->y->type;
  call.other_type = c->other ? c->other->type : CK_F32, call.z_type = c->z ? c->z->type : CK_F32;
  return call;
}

static void read_values(rows_case *c) {
  c->x_values = values_of(c->x), c->other_values = values_of(c->other), c->weight_values = values_of(c->weight);
  c->bias_values = values_of(c->bias), c->held_values = values_of(c->y);
}

static void free_values(const rows_case *c) {
  free(c->x_values), free(c->other_values), free(c->weight_values), free(c->bias_values), free(c->held_values);
}

static void compare(test *t, int32_t fields, const ck_rows *call, const rows_case *c, row_definition definition) {
  const size_t n = call->n, x_n = c->x->n;
  double *results = calloc(4 * n + 1, sizeof *results);
  for (size_t i = 0; i < call->rows; i++) {
    row r = {.call = call, .i = i, .n = n, .x_n = x_n, .weight = c->weight_values, .bias = c->bias_values};
    r.x = c->x_values + (fields & (TABLE | SEGMENTS) ? 0 : i * x_n);
    if (c->other) r.other = c->other_values + (call->other_rs ? i * n : 0);
    r.held = c->held_values + i * n;
    r.y = results, r.y_error = results + n, r.z = results + 2 * n, r.z_error = results + 3 * n;
    definition(&r);
    for (size_t j = 0; j < n; j++) {
      check_element(t, c->y, i, j, r.y[j], r.y_error[j]);
      if (c->z) check_element(t, c->z, i, j, r.z[j], r.z_error[j]);
    }
  }
  free(results);
}

// Straight into the kernel, at once or cut in two: f32 at every place.
static void check_kernel(test *t, int32_t fields, ck_rows_kernel kernel, row_definition definition, size_t n, int place) {
  const size_t rows = 1 + random_below(t, 4), cut = random_below(t, rows + 1);
  rows_case c;
  situation(t, place, "rows=%zu cut at %zu n=%zu place=%d", rows, cut, n, place);
  const ck_rows call = make_call(t, fields, CK_F32, rows, n, &c);
  read_values(&c);
  seal(t);
  kernel(&call, 0, cut);
  kernel(&call, cut, rows);
  check_untouched(t);
  compare(t, fields, &call, &c, definition);
  free_values(&c);
}

// Through the driver: every storage type, the same bits on any number of threads.
typedef struct driver_case {
  int32_t fields;
  ck_rows_kernel kernel;
  row_definition definition;
  ck_dtype type;
  size_t rows, n;
  int place;
} driver_case;

static void run_driver(test *t, const void *shape, size_t threads) {
  const driver_case *d = shape;
  rows_case c;
  situation(t, d->place, "driver, type %d rows=%zu n=%zu threads=%zu", d->type, d->rows, d->n, threads);
  const ck_rows call = make_call(t, d->fields, d->type, d->rows, d->n, &c);
  read_values(&c);
  seal(t);
  if (ck_rows_run(t->table, d->kernel, &call, threads)) fail(t, "no scratch");
  check_untouched(t);
  if (threads == 1) compare(t, d->fields, &call, &c, d->definition);
  free_values(&c);
}

void check_rows(test *t, int32_t fields, ck_rows_kernel kernel, row_definition definition) {
  for (size_t n = 0; n <= 67; n++)
    for (int place = AT_END; place < PLACES - 1; place++) check_kernel(t, fields, kernel, definition, n, place);
  const size_t lengths[] = {127, 128, 129, 255, 257, 512, 1025};
  for (size_t k = 0; k < COUNT(lengths); k++)
    for (int place = AT_END; place < PLACES - 1; place += 3) check_kernel(t, fields, kernel, definition, lengths[k], place);
  for (int type = 0; type <= CK_DTYPE_COUNT; type++) {
    driver_case c = {fields, kernel, definition, (ck_dtype)type, 3, 0, AT_END};
    for (; c.n <= 35; c.n++) c.place = c.n % 2 ? 1 : AT_END, check_threads(t, run_driver, &c);
    c.rows = 2100, c.n = 17, c.place = AT_END, check_threads(t, run_driver, &c);
    c.rows = 5, c.n = 9001, c.place = 3, check_threads(t, run_driver, &c);
  }
}
