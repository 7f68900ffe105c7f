// Pooling, resizing and padding.
#include "image.h"

#include "definitions.h"

image image_of(test *t, ck_dtype type, int channels_last, size_t batch, size_t channels, size_t h, size_t w) {
  image m = {.batch = batch, .channels = channels, .h = h, .w = w, .spare = channels_last && one_in(t, 3) ? 2 : 0};
  const size_t wide = w + m.spare, n = channels_last ? channels : w;
  m.at = matrix(t, type, channels_last ? batch * h * wide : batch * channels * h, n, stride_for(t, n), 2);
  const size_t rs = m.at->rs;
  m.ws = channels_last ? rs : 1, m.hs = channels_last ? wide * rs : rs;
  m.cs = channels_last ? 1 : h * rs, m.bs = channels_last ? h * wide * rs : channels * h * rs;
  for (size_t row = 0; m.spare && row < m.at->rows; row++)
    for (size_t c = 0; row % wide >= w && c < channels; c++) set_element(m.at, row, c, NAN);
  return m;
}

void check_spare(test *t, const image *m) {
  for (size_t row = 0; m->spare && row < m->at->rows; row++)
    for (size_t c = 0; row % (m->w + m->spare) >= m->w && c < m->channels; c++)
      if (!isnan(element(m->at, row, c))) fail(t, "a column beyond the image was written");
}

// What x is to become at (b, c, i, j) of y, and the error allowed.
typedef double (*image_definition)(const ck_image *g, const image *x, size_t b, size_t c, size_t i, size_t j, double *error);

// Element k of a window's tap, in x or not.
static int tap(size_t at, size_t stride, size_t k, size_t dilation, size_t pad, size_t extent, size_t *x) {
  const size_t place = at * stride + k * dilation;
  *x = place - pad;
  return place >= pad && place - pad < extent;
}

static double pool(const ck_image *g, const image *x, size_t b, size_t c, size_t i, size_t j, int largest, double *error) {
  double sum = 0, magnitude = 0, top = -INFINITY, count = 0;
  size_t row, column;
  for (size_t p = 0; p < g->kernel_h; p++)
    for (size_t q = 0; q < g->kernel_w; q++) {
      if (!tap(i, g->stride_h, p, g->dilation_h, g->pad_h, g->x_h, &row)) continue;
      if (!tap(j, g->stride_w, q, g->dilation_w, g->pad_w, g->x_w, &column)) continue;
      const double value = pixel(x, b, c, row, column);
      sum += value, magnitude += fabs(value), count++;
      if (isnan(value) || value > top) top = value;  // a NaN stays
    }
  const double window = (double)(g->kernel_h * g->kernel_w), by = g->include_pad ? window : count;
  *error = largest ? 0 : gamma_of(window + 2) * magnitude / by + 0x1p-149;
  return largest ? top : sum / by;
}
static double largest_of(const ck_image *g, const image *x, size_t b, size_t c, size_t i, size_t j, double *error) {
  return pool(g, x, b, c, i, j, 1, error);
}
static double mean_of(const ck_image *g, const image *x, size_t b, size_t c, size_t i, size_t j, double *error) {
  return pool(g, x, b, c, i, j, 0, error);
}

static double nearest(const ck_image *g, const image *x, size_t b, size_t c, size_t i, size_t j, double *error) {
  *error = 0;
  return pixel(x, b, c, i * g->x_h / g->y_h, j * g->x_w / g->y_w);
}

// Where output i of `to` lies among `from` elements.
static double place_of(size_t i, size_t from, size_t to, int align_corners) {
  if (align_corners) return to > 1 ? (double)(i * (from - 1)) / (double)(to - 1) : 0;
  return MIN(MAX(((double)i + 0.5) * (double)from / (double)to - 0.5, 0), (double)(from - 1));
}

static double bilinear(const ck_image *g, const image *x, size_t b, size_t c, size_t i, size_t j, double *error) {
  const double row = place_of(i, g->x_h, g->y_h, g->align_corners), column = place_of(j, g->x_w, g->y_w, g->align_corners);
  double sum = 0, magnitude = 0;
  for (size_t corner = 0; corner < 4; corner++) {
    const size_t p = MIN((size_t)row + corner / 2, g->x_h - 1), q = MIN((size_t)column + corner % 2, g->x_w - 1);
    const double down = row - floor(row), across = column - floor(column);
    const double weight = (corner / 2 ? down : 1 - down) * (corner % 2 ? across : 1 - across);
    sum += weight * pixel(x, b, c, p, q), magnitude += weight * fabs(pixel(x, b, c, p, q));
  }
  *error = gamma_of(8) * magnitude + 0x1p-146;
  return sum;
}

// Index `at` - pad of x beyond its border; -1 for the constant.
static ptrdiff_t beyond(ck_border border, size_t at, size_t pad, size_t extent) {
  const ptrdiff_t i = (ptrdiff_t)at - (ptrdiff_t)pad, last = (ptrdiff_t)extent - 1;
  if (i >= 0 && i <= last) return i;
  if (border == CK_BORDER_REFLECT) return i < 0 ? -i : 2 * last - i;
  return border == CK_BORDER_REPLICATE ? (i < 0 ? 0 : last) : -1;
}

static double padded(const ck_image *g, const image *x, size_t b, size_t c, size_t i, size_t j, double *error) {
  const ptrdiff_t p = beyond(g->border, i, g->pad_h, g->x_h), q = beyond(g->border, j, g->pad_w, g->x_w);
  *error = 0;
  return p < 0 || q < 0 ? g->value : pixel(x, b, c, (size_t)p, (size_t)q);
}

// A case: the scalars of `call`, on images of these types.
typedef struct image_case {
  ck_image call;
  ck_image_kernel kernel;
  image_definition definition;
  int place, holes;  // holes: some of x is NaN
} image_case;

static void run_image(test *t, const void *shape, size_t threads) {
  const image_case *s = shape;
  ck_image g = s->call;
  situation(t, s->place,
            "%zux%zux%zux%zu to %zux%zu, last=%d types %d %d window %zux%zu by %zux%zu dilation %zux%zu pad %zux%zu threads=%zu",
            g.batch, g.channels, g.x_h, g.x_w, g.y_h, g.y_w, g.channels_last, g.x_type, g.y_type, g.kernel_h, g.kernel_w,
            g.stride_h, g.stride_w, g.dilation_h, g.dilation_w, g.pad_h, g.pad_w, threads);
  const image x = image_of(t, g.x_type, g.channels_last, g.batch, g.channels, g.x_h, g.x_w);
  const image y = image_of(t, g.y_type, g.channels_last, g.batch, g.channels, g.y_h, g.y_w);
  for (size_t k = 0; s->holes && k < x.at->rows * x.at->n / 20; k++)
    set_element(x.at, random_below(t, x.at->rows), random_below(t, x.at->n), NAN);
  y.at->written = 1;
  g.x = x.at->at, g.x_bs = x.bs, g.x_cs = x.cs, g.x_hs = x.hs, g.x_ws = x.ws;
  g.y = y.at->at, g.y_bs = y.bs, g.y_cs = y.cs, g.y_hs = y.hs, g.y_ws = y.ws;
  seal(t);
  if (ck_image_run(t->table, s->kernel, &g, threads)) fail(t, "no scratch");
  check_untouched(t);
  check_spare(t, &y);
  for (size_t item = 0; threads == 1 && item < g.batch * g.channels * g.y_h * g.y_w; item++) {
    const size_t j = item % g.y_w, i = item / g.y_w % g.y_h, c = item / g.y_w / g.y_h % g.channels;
    const size_t b = item / g.y_w / g.y_h / g.channels;
    double error;
    const double expected = s->definition(&g, &x, b, c, i, j, &error);
    check_pixel(t, &y, b, c, i, j, expected, error);
  }
}

// A window along one axis, and how many outputs it has. A window may stick out behind; its first element never lies there.
static size_t window_of(test *t, size_t extent, int dilates, size_t *kernel, size_t *stride, size_t *dilation, size_t *pad) {
  *kernel = 1 + random_below(t, 4), *stride = 1 + random_below(t, 4), *dilation = dilates ? 1 + random_below(t, 3) : 1;
  *pad = random_below(t, *kernel);
  return (extent + *pad - 1) / *stride + (one_in(t, 2) ? 1 : 0);
}

static ck_image sizes_of(test *t, size_t channels, size_t h, size_t w) {
  ck_image g = {.batch = random_below(t, 8) ? 1 + random_below(t, 2) : 0, .channels = channels, .channels_last = one_in(t, 2)};
  g.x_h = h, g.x_w = w, g.x_type = any_type(t), g.y_type = g.x_type;
  g.kernel_h = g.kernel_w = g.stride_h = g.stride_w = g.dilation_h = g.dilation_w = 1;
  return g;
}

// Sizes of every length up to a few vectors, then some that threads share.
static void check_images(test *t, ck_image_kernel kernel, image_definition definition, void (*choose)(test *t, ck_image *g)) {
  for (size_t n = 1; n <= 35; n++)
    for (int place = AT_END; place < PLACES - 1; place++) {
      const size_t other = 1 + random_below(t, 7), third = 1 + random_below(t, 7), turn = random_below(t, 3);
      image_case s = {sizes_of(t, turn ? other : n, 1 + random_below(t, 5), turn ? n : third), kernel, definition, place, 0};
      choose(t, &s.call);
      s.holes = definition == largest_of && one_in(t, 3);
      check_threads(t, run_image, &s);
    }
  const size_t sizes[][3] = {{200, 1, 9}, {130, 7, 7}, {3, 40, 61}, {40, 20, 16}, {2, 9, 300}};
  for (size_t repeat = 0; repeat < 6; repeat++)
    for (size_t k = 0; k < COUNT(sizes); k++) {
      image_case s = {sizes_of(t, sizes[k][0], sizes[k][1], sizes[k][2]), kernel, definition, AT_END, 0};
      choose(t, &s.call);
      check_threads(t, run_image, &s);
    }
}

static void choose_window(test *t, ck_image *g, int dilates) {
  g->y_type = any_type(t), g->include_pad = one_in(t, 2);
  g->y_h = window_of(t, g->x_h, dilates, &g->kernel_h, &g->stride_h, &g->dilation_h, &g->pad_h);
  g->y_w = window_of(t, g->x_w, dilates, &g->kernel_w, &g->stride_w, &g->dilation_w, &g->pad_w);
  if (!one_in(t, 6)) return;  // global
  g->kernel_h = g->x_h, g->kernel_w = g->x_w, g->y_h = g->y_w = g->dilation_h = g->dilation_w = 1, g->pad_h = g->pad_w = 0;
}
static void choose_mean(test *t, ck_image *g) { choose_window(t, g, 0); }
static void choose_largest(test *t, ck_image *g) { choose_window(t, g, 1); }
void check_avg_pool(test *t) { check_images(t, t->table->f32_avg_pool, mean_of, choose_mean); }
void check_max_pool(test *t) { check_images(t, t->table->f32_max_pool, largest_of, choose_largest); }

static void choose_size(test *t, ck_image *g) {
  g->y_h = one_in(t, 3) ? 2 * g->x_h : 1 + random_below(t, 3 * g->x_h), g->align_corners = one_in(t, 2);
  g->y_w = one_in(t, 3) ? 2 * g->x_w : 1 + random_below(t, 3 * g->x_w);
}
static void choose_size_and_type(test *t, ck_image *g) { choose_size(t, g), g->y_type = any_type(t); }
void check_resize_nearest(test *t) { check_images(t, t->table->f32_resize_nearest, nearest, choose_size); }
void check_resize_bilinear(test *t) { check_images(t, t->table->f32_resize_bilinear, bilinear, choose_size_and_type); }

static void choose_border(test *t, ck_image *g) {
  g->border = (ck_border)random_below(t, 3), g->value = random_bits(t) & 1 ? 0 : (float)random_in(t, -2, 2);
  const int reflects = g->border == CK_BORDER_REFLECT;
  const size_t most_h = reflects ? g->x_h : 6, most_w = reflects ? g->x_w : 20;
  g->pad_h = random_below(t, most_h), g->y_h = g->x_h + g->pad_h + random_below(t, most_h);
  g->pad_w = random_below(t, most_w), g->y_w = g->x_w + g->pad_w + random_below(t, most_w);
}
void check_pad(test *t) { check_images(t, t->table->f32_pad, padded, choose_border); }

void check_image_run(test *t) {
  image_case s = {sizes_of(t, 2, 3, 4), t->table->f32_pad, padded, AT_END, 0};
  s.call.batch = 0, s.call.y_h = 3, s.call.y_w = 4;
  check_threads(t, run_image, &s);
  s.call.batch = 1, s.call.y_w = 0;
  check_threads(t, run_image, &s);
}
