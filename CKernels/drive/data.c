// Copies, reductions of columns and positions of extremes around their kernels: layouts, pieces for the threads.
#include <string.h>

#include "../include/ck_kernels.h"
#include "../include/ck_parallel.h"

enum {
  RANK = CK_COPY_RANK,
  TILE = 64,                // of a transpose
  CHUNK = 1 << 10,          // elements converted or gathered at a time
  ROW_PIECE = 1 << 14,      // of one long row
  PIECE_ELEMENTS = 1 << 14,  // worth handing to another thread
  STRIP = 128,              // columns of a reduction, as in body/reduce.h
};

typedef struct axis {
  size_t extent, x, y;  // strides in elements
} axis;

typedef struct copy_job {
  const ck_kernels *table;
  const ck_copy *call;
  axis axes[RANK];  // outermost first by y's strides, neighbours merged, ones in front
  size_t row_pieces, column_pieces;  // of axes 2 and 3
  size_t row_piece, column_piece;    // their sizes
  int turns;                         // a transpose: x steps by one along axis 2, y along axis 3
} copy_job;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t pieces(size_t n, size_t of) { return (n + of - 1) / of; }

// Sorts the axes, drops those of one element and merges those that step as one.
static void arrange(const ck_copy *call, axis axes[RANK]) {
  axis kept[RANK];
  size_t count = 0;
  for (size_t a = 0; a < RANK; a++) {
    const axis next = {call->extents[a], call->x_strides[a], call->y_strides[a]};
    if (next.extent == 1) continue;
    size_t at = count++;
    for (; at > 0 && kept[at - 1].y < next.y; at--) kept[at] = kept[at - 1];
    kept[at] = next;
  }
  size_t to = RANK;
  for (size_t a = count; a-- > 0;) {
    axis *inner = axes + to;
    if (to < RANK && kept[a].x == inner->x * inner->extent && kept[a].y == inner->y * inner->extent)
      inner->extent *= kept[a].extent;
    else
      axes[--to] = kept[a];
  }
  while (to > 0) axes[--to] = (axis){1, 1, 1};
}

static void copy_strided(size_t size, size_t n, const char *x, size_t x_step, char *y, size_t y_step) {
  if (size == 4)
    for (size_t i = 0; i < n; i++) memcpy(y + 4 * i * y_step, x + 4 * i * x_step, 4);
  else
    for (size_t i = 0; i < n; i++) memcpy(y + 2 * i * y_step, x + 2 * i * x_step, 2);
}

// n elements, nothing between them on either side.
static void convert(const copy_job *job, size_t n, const char *x, char *y) {
  const ck_dtype from = job->call->x_type, to = job->call->y_type;
  if (from == to) {
    memcpy(y, x, n * ck_dtype_size(from));
  } else if (to == CK_F32) {
    job->table->f32_widen(from, n, x, (float *)(void *)y);
  } else if (from == CK_F32) {
    job->table->f32_narrow(to, n, (const float *)(const void *)x, y);
  } else {
    float wide[CHUNK];
    for (size_t i = 0; i < n; i += CHUNK) {
      const size_t part = least(n - i, CHUNK);
      job->table->f32_widen(from, part, x + 2 * i, wide);
      job->table->f32_narrow(to, part, wide, y + 2 * i);
    }
  }
}

static void copy_row(const copy_job *job, size_t n, const char *x, char *y) {
  const size_t x_size = ck_dtype_size(job->call->x_type), y_size = ck_dtype_size(job->call->y_type);
  const axis inner = job->axes[RANK - 1];
  if (inner.x == 1 && inner.y == 1) {
    convert(job, n, x, y);
    return;
  }
  if (job->call->x_type == job->call->y_type) {
    copy_strided(x_size, n, x, inner.x, y, inner.y);
    return;
  }
  float gathered[CHUNK], converted[CHUNK];
  for (size_t i = 0; i < n; i += CHUNK) {
    const size_t part = least(n - i, CHUNK);
    copy_strided(x_size, part, x + i * inner.x * x_size, inner.x, (char *)gathered, 1);
    convert(job, part, (const char *)gathered, (char *)converted);
    copy_strided(y_size, part, (const char *)converted, 1, y + i * inner.y * y_size, inner.y);
  }
}

// y[j, i] = x[i, j] for 16-bit elements of any kind.
static void transpose_halves(size_t m, size_t n, const uint16_t *x, size_t x_rs, uint16_t *y, size_t y_rs) {
  for (size_t j = 0; j < n; j++)
    for (size_t i = 0; i < m; i++) y[j * y_rs + i] = x[i * x_rs + j];
}

// y [n, m] = x [m, n], rows x_rs and y_rs apart, at most TILE each way where the types differ.
static void copy_tile(const copy_job *job, size_t m, size_t n, const char *x, size_t x_rs, char *y, size_t y_rs) {
  const ck_dtype from = job->call->x_type, to = job->call->y_type;
  if (from == to && from != CK_F32) {
    transpose_halves(m, n, (const uint16_t *)(const void *)x, x_rs, (uint16_t *)(void *)y, y_rs);
    return;
  }
  float wide[TILE * TILE], turned[TILE * TILE];
  const float *source = (const float *)(const void *)x;
  float *target = (float *)(void *)y;
  size_t source_rs = x_rs, target_rs = y_rs;
  if (from != CK_F32) {
    source = wide, source_rs = TILE;
    for (size_t i = 0; i < m; i++) job->table->f32_widen(from, n, x + 2 * i * x_rs, wide + i * TILE);
  }
  if (to != CK_F32) target = turned, target_rs = TILE;
  job->table->f32_transpose(m, n, source, source_rs, target, target_rs);
  if (to != CK_F32)
    for (size_t j = 0; j < n; j++) job->table->f32_narrow(to, m, turned + j * TILE, y + 2 * j * y_rs);
}

// Items are pieces of the two inner axes, for each of the outer ones.
static void copy_items(const void *context, size_t first, size_t last) {
  const copy_job *job = context;
  const axis *a = job->axes;
  const size_t x_size = ck_dtype_size(job->call->x_type), y_size = ck_dtype_size(job->call->y_type);
  for (size_t item = first; item < last; item++) {
    const size_t column = item % job->column_pieces * job->column_piece, rest = item / job->column_pieces;
    const size_t row = rest % job->row_pieces * job->row_piece, outer = rest / job->row_pieces;
    const size_t i0 = outer / a[1].extent, i1 = outer % a[1].extent;
    const char *x = (const char *)job->call->x + (i0 * a[0].x + i1 * a[1].x + row * a[2].x + column * a[3].x) * x_size;
    char *y = (char *)job->call->y + (i0 * a[0].y + i1 * a[1].y + row * a[2].y + column * a[3].y) * y_size;
    const size_t rows = least(a[2].extent - row, job->row_piece), columns = least(a[3].extent - column, job->column_piece);
    if (job->turns)
      copy_tile(job, columns, rows, x, a[3].x, y, a[2].y);
    else
      for (size_t r = 0; r < rows; r++) copy_row(job, columns, x + r * a[2].x * x_size, y + r * a[2].y * y_size);
  }
}

void ck_copy_run(const ck_kernels *table, const ck_copy *call, size_t threads) {
  for (size_t a = 0; a < RANK; a++)
    if (!call->extents[a]) return;
  copy_job job = {.table = table, .call = call};
  axis *a = job.axes;
  arrange(call, a);
  // A transpose where y's inner axis steps over x and another one does not: that one becomes the rows.
  size_t unit = RANK;
  for (size_t i = 0; i + 1 < RANK; i++)
    if (a[i].extent > 1 && a[i].x == 1) unit = i;
  job.turns = unit < RANK && a[3].y == 1 && a[3].x != 1;
  if (job.turns) {
    const axis rows = a[unit];
    for (; unit < 2; unit++) a[unit] = a[unit + 1];
    a[2] = rows;
  }
  job.column_piece = job.turns ? TILE : ROW_PIECE;
  job.row_piece = job.turns ? TILE : PIECE_ELEMENTS / least(a[3].extent, ROW_PIECE);
  job.column_pieces = pieces(a[3].extent, job.column_piece), job.row_pieces = pieces(a[2].extent, job.row_piece);
  const size_t items = a[0].extent * a[1].extent * job.row_pieces * job.column_pieces;
  const size_t each = least(job.row_piece, a[2].extent) * least(job.column_piece, a[3].extent);
  ck_parallel(items, pieces(PIECE_ELEMENTS, each), threads, copy_items, &job);
}

typedef struct reduce_job {
  const ck_kernels *table;
  const ck_rows *call;
} reduce_job;

static void reduce_strips(const void *context, size_t first, size_t last) {
  const reduce_job *job = context;
  job->table->f32_reduce_columns(job->call, first * STRIP, least(last * STRIP, job->call->n));
}

void ck_reduce_columns(const ck_kernels *table, const ck_rows *call, size_t threads) {
  const reduce_job job = {table, call};
  const size_t strips = pieces(call->n, STRIP), each = STRIP * (call->rows ? call->rows : 1);
  ck_parallel(strips, pieces(PIECE_ELEMENTS, each), threads, reduce_strips, &job);
}

typedef struct extreme_job {
  const ck_kernels *table;
  const ck_extreme *call;
} extreme_job;

static void find_extremes(const void *context, size_t first, size_t last) {
  const extreme_job *job = context;
  job->table->f32_argmax(job->call, first, last);
}

void ck_argmax(const ck_kernels *table, const ck_extreme *call, size_t threads) {
  const extreme_job job = {table, call};
  ck_parallel(call->rows, pieces(PIECE_ELEMENTS, call->n), threads, find_extremes, &job);
}
