// The largest elements of rows, and rows added where indices say.
#include <stdlib.h>
#include <string.h>

#include "definitions.h"

// Whether element a of a row comes before element b among the largest: NaN first, equal ones by index.
static int comes_before(const operand *x, size_t i, size_t a, size_t b) {
  const double p = element(x, i, a), q = element(x, i, b);
  if (isnan(p) || isnan(q)) return isnan(p) && (!isnan(q) || a < b);
  return p > q || (p == q && a < b);
}

typedef struct top_case {
  operand *x, *found, *values;
  ck_top_k call;
} top_case;

// Few different values, so that many are equal; infinities, both zeros and NaN among them.
static top_case make_top(test *t, size_t rows, size_t n, size_t k) {
  const ck_dtype type = any_type(t);
  const int plain = one_in(t, 3);
  top_case c = {.x = plain ? matrix(t, type, rows, n, stride_for(t, n), 4) : integers(t, type, rows, n, stride_for(t, n))};
  const double special[] = {NAN, INFINITY, -INFINITY, -0.0, 0};
  for (size_t e = 0; !plain && e < rows * n / 8; e++)
    set_element(c.x, random_below(t, rows), random_below(t, n), special[random_below(t, COUNT(special))]);
  c.values = matrix(t, any_type(t), rows, k, stride_for(t, k), 1), c.found = vector(t, rows * k, 1);
  c.values->written = c.found->written = 1;
  c.call = (ck_top_k){.rows = rows, .n = n, .k = k, .x = c.x->at, .x_rs = c.x->rs, .x_type = type, .indices = c.found->at};
  c.call.values = c.values->at, c.call.values_rs = c.values->rs, c.call.value_type = c.values->type;
  return c;
}

static void compare_top(test *t, const top_case *c) {
  const size_t n = c->call.n, k = c->call.k;
  for (size_t i = 0; i < c->call.rows; i++)
    for (size_t j = 0; j < n; j++) {
      size_t rank = 0;
      for (size_t other = 0; other < n; other++) rank += (size_t)comes_before(c->x, i, other, j);
      if (rank >= k) continue;
      if (c->call.indices[i * k + rank] != (int32_t)j)
        fail(t, "row %zu, number %zu is %d, not %zu", i, rank, c->call.indices[i * k + rank], j);
      check_element(t, c->values, i, rank, element(c->x, i, j), 0);
    }
}

static size_t any_k(test *t, size_t n) { return one_in(t, 4) ? n : random_below(t, MIN(n, 9) + 1); }

void check_top_k(test *t) {
  for (size_t n = 0; n <= 140; n++)
    for (int place = AT_END; place < PLACES - 1; place += 2) {
      const size_t rows = random_below(t, 4), k = any_k(t, n), cut = random_below(t, rows + 1);
      situation(t, place, "rows=%zu cut at %zu n=%zu k=%zu place=%d", rows, cut, n, k, place);
      const top_case c = make_top(t, rows, n, k);
      t->place = AT_END;
      operand *heap = vector(t, 2 * k, 1);
      heap->written = 1;
      seal(t);
      t->table->f32_top_k(&c.call, 0, cut, heap->at);
      t->table->f32_top_k(&c.call, cut, rows, heap->at);
      check_untouched(t);
      compare_top(t, &c);
    }
}

static void top_driver_case(test *t, const void *shape, size_t threads) {
  const size_t *s = shape, k = any_k(t, s[1]);
  situation(t, AT_END, "rows=%zu n=%zu k=%zu threads=%zu", s[0], s[1], k, threads);
  const top_case c = make_top(t, s[0], s[1], k);
  seal(t);
  if (ck_f32_top_k(t->table, &c.call, threads)) fail(t, "no scratch");
  check_untouched(t);
  if (threads == 1) compare_top(t, &c);
}

void check_top_k_driver(test *t) {
  const size_t shapes[][2] = {{0, 5}, {3, 1}, {1500, 32}, {9, 300}, {2, 1100}};
  for (size_t repeat = 0; repeat < 6; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, top_driver_case, shapes[k]);
}

typedef struct scatter_case {
  operand *x, *y, *weights;
  double *held;
  ck_scatter_add call;
} scatter_case;

static scatter_case make_scatter(test *t, size_t rows, size_t n, size_t y_rows) {
  int32_t *ids = indices(t, rows);
  for (size_t i = 0; i < rows; i++) ids[i] = (int32_t)random_below(t, y_rows);
  scatter_case c = {.x = matrix(t, any_type(t), rows, n, stride_for(t, n), 2)};
  c.y = matrix(t, any_type(t), y_rows, n, stride_for(t, n), 2), c.weights = one_in(t, 2) ? vector(t, rows, 2) : 0;
  c.y->written = 1, c.held = values_of(c.y);
  c.call = (ck_scatter_add){.rows = rows, .n = n, .y_rows = y_rows, .ids = ids, .weights = floats(c.weights)};
  c.call.x = c.x->at, c.call.x_rs = c.x->rs, c.call.x_type = c.x->type;
  c.call.y = c.y->at, c.call.y_rs = c.y->rs, c.call.y_type = c.y->type;
  return c;
}

// Each step is one rounding, or two without an FMA; what is not in the piece stays.
static void compare_scatter(test *t, const scatter_case *c, const ck_scatter_piece *piece) {
  const ck_scatter_add *g = &c->call;
  for (size_t i = 0; i < g->y_rows; i++)
    for (size_t j = 0; j < g->n; j++) {
      double sum = c->held[i * g->n + j], magnitude = fabs(sum), count = 0;
      const int inside = i >= piece->first && i < piece->last && j >= piece->column && j < piece->column + piece->columns;
      for (size_t r = 0; inside && r < g->rows; r++) {
        if ((size_t)g->ids[r] != i) continue;
        const double term = (c->weights ? element(c->weights, 0, r) : 1) * element(c->x, r, j);
        sum += term, magnitude += fabs(term), count++;
      }
      check_element(t, c->y, i, j, sum, gamma_of(2 * count) * magnitude);
    }
}

void check_scatter_add(test *t) {
  for (size_t n = 1; n <= 70; n++)
    for (int place = AT_END; place < PLACES - 1; place += 2) {
      const size_t rows = random_below(t, 9), y_rows = 1 + random_below(t, 5);
      situation(t, place, "rows=%zu n=%zu onto %zu place=%d", rows, n, y_rows, place);
      const scatter_case c = make_scatter(t, rows, n, y_rows);
      int32_t *sources = indices(t, rows), *offsets = indices(t, y_rows + 1);
      size_t count = 0;
      for (size_t i = 0; i < y_rows; i++) {
        for (size_t r = 0; r < rows; r++)
          if ((size_t)c.call.ids[r] == i) sources[count++] = (int32_t)r;
        offsets[i + 1] = (int32_t)count;
      }
      ck_scatter_piece piece = {.sources = sources, .offsets = offsets, .first = random_below(t, y_rows)};
      piece.last = piece.first + random_below(t, y_rows - piece.first + 1);
      piece.column = one_in(t, 2) ? 0 : random_below(t, n), piece.columns = random_below(t, n - piece.column + 1);
      seal(t);
      t->table->f32_scatter_add(&c.call, &piece);
      check_untouched(t);
      compare_scatter(t, &c, &piece);
      free(c.held);
    }
}

static void scatter_driver_case(test *t, const void *shape, size_t threads) {
  const size_t *s = shape;
  situation(t, AT_END, "rows=%zu n=%zu onto %zu threads=%zu", s[0], s[1], s[2], threads);
  const scatter_case c = make_scatter(t, s[0], s[1], s[2]);
  seal(t);
  if (ck_f32_scatter_add(t->table, &c.call, threads)) fail(t, "no scratch");
  check_untouched(t);
  if (threads == 1) compare_scatter(t, &c, &(ck_scatter_piece){.last = s[2], .columns = s[1]});
  free(c.held);
}

void check_scatter_add_driver(test *t) {
  const size_t shapes[][3] = {{0, 5, 3}, {7, 0, 3}, {50, 33, 1}, {90, 700, 40}, {300, 150, 500}};
  for (size_t repeat = 0; repeat < 8; repeat++)
    for (size_t k = 0; k < COUNT(shapes); k++) check_threads(t, scatter_driver_case, shapes[k]);
}
