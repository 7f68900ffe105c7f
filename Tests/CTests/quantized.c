// Quantised weights: x to codes, panels of every format by codes, packing, and the driver over all of it.
#include <stdlib.h>
#include <string.h>

#include "definitions.h"
#include "products.h"

static const ck_dtype formats[] = {CK_Q8_0, CK_Q4_0, CK_Q4_K, CK_Q6_K, CK_MXFP4, CK_Q5_1, CK_Q5_K};
static const char *const format_names[] = {"q8_0", "q4_0", "q4_k", "q6_k", "mxfp4", "q5_1", "q5_k"};

// A weight, and the magnitude of the terms that it is the difference of.
typedef struct weight {
  double value, reach;
} weight;

// Twice the values of the 4-bit floats.
static const double e2m1[] = {0, 1, 2, 3, 4, 6, 8, 12, -0.0, -1, -2, -3, -4, -6, -8, -12};

static unsigned word_at(const unsigned char *p) { return p[0] | (unsigned)p[1] << 8; }
static double half_at(const unsigned char *p) { return decoded(CK_F16, word_at(p)); }

// Element (p, j) of panels, read as the table in ck_types.h has it.
static weight weight_at(ck_dtype type, const void *panels, size_t nr, size_t k, size_t p, size_t j) {
  const size_t unit = ck_quant_unit(type), block = ck_packed_bytes(type, unit * nr), c = j % nr;
  const unsigned char *at = (const unsigned char *)panels + (j / nr * (k / unit) + p / unit) * block;
  const size_t row = p % 32, pair = row / 2, odd = row % 2, words = ((pair / 4 * nr + c) * 2 + odd) * 2;
  const double d = type == CK_MXFP4 ? decoded(CK_BF16, word_at(at + 2 * c)) : half_at(at + 2 * c);
  if (type == CK_Q8_0) {
    const double w = d * (signed char)at[2 * nr + (pair * nr + c) * 2 + odd];
    return (weight){w, fabs(w)};
  }
  if (type == CK_Q4_0) {
    const unsigned q = word_at(at + 2 * nr + words) >> pair % 4 * 4 & 15;
    return (weight){d * ((double)q - 8), fabs(d) * 8};
  }
  if (type == CK_MXFP4) {
    const double w = d * e2m1[word_at(at + 2 * nr + words) >> pair % 4 * 4 & 15];
    return (weight){w, fabs(w)};
  }
  const size_t fifths = (c * 2 + odd) * 2, fifth = pair % 2 + pair / 4 * 2 + pair / 2 % 2 * 8;
  if (type == CK_Q5_1) {
    const unsigned q = (word_at(at + 4 * nr + words) >> pair % 4 * 4 & 15) | (word_at(at + 20 * nr + fifths) >> fifth & 1) << 4;
    const double high = d * q, low = half_at(at + 2 * nr + 2 * c);
    return (weight){high + low, fabs(high) + fabs(low)};
  }
  if (type == CK_Q4_K || type == CK_Q5_K) {
    const unsigned char *part = at + 4 * nr + p % 256 / 32 * (type == CK_Q5_K ? 22 : 18) * nr;
    unsigned q = word_at(part + 2 * nr + words) >> pair % 4 * 4 & 15;
    if (type == CK_Q5_K) q |= (word_at(part + 18 * nr + fifths) >> fifth & 1) << 4;
    const double high = d * (signed char)part[c] * q;
    const double low = half_at(at + 2 * nr + 2 * c) * (signed char)part[nr + c];
    return (weight){high - low, fabs(high) + fabs(low)};
  }
  const unsigned char *part = at + 2 * nr + p % 256 / 32 * 26 * nr;
  const unsigned low = word_at(part + 2 * nr + words) >> pair % 4 * 4 & 15;
  const unsigned high =
      word_at(part + 18 * nr + ((pair / 8 * nr + c) * 2 + odd) * 2) >> (pair % 2 + pair / 2 % 2 * 4 + pair / 4 % 2 * 2) * 2 & 3;
  const double scale = d * (signed char)part[row / 16 * nr + c];
  return (weight){scale * ((double)(low | high << 4) - 32), fabs(scale) * 32};
}

operand *quantized_panels(test *t, ck_dtype type, size_t n, size_t k) {
  const size_t nr = t->table->gemm_nr, columns = padded_to(n, nr), unit = ck_quant_unit(type);
  operand *packed = matrix(t, CK_F16, 1, ck_packed_bytes(type, columns * k) / 2, 0, 1);
  uint16_t *words = packed->at;
  for (size_t i = 0; i < packed->n; i++) words[i] = (uint16_t)random_bits(t);
  for (size_t block = 0; block < columns * k / (unit * nr); block++)
    for (size_t c = 0; c < (ck_quant_lowered(type) ? 2 : 1) * nr; c++)
      words[block * ck_packed_bytes(type, unit * nr) / 2 + c] = (uint16_t)((random_bits(t) & 1) << 15 | random_bits(t) % 0x4000);
  return packed;
}

// The codes of [m, k] random values, as kernels are given them.
typedef struct codes {
  operand *codes, *scales, *sums;
} codes;

static int16_t code_at(const codes *x, size_t i, size_t p) { return ((int16_t *)x->codes->at)[i * x->codes->n + p]; }

static codes random_codes(test *t, ck_dtype type, size_t m, size_t k) {
  const size_t group = 32 / ck_quant_parts(type);
  codes x = {matrix(t, CK_F16, m, k, k, 1), matrix(t, CK_F32, m, k / 32, k / 32, 1),
             matrix(t, CK_F32, m, k / group, k / group, 1)};
  for (size_t i = 0; i < m; i++) {
    int32_t *sums = (int32_t *)x.sums->at + i * (k / group);
    for (size_t p = 0; p < k; p++) {
      const int16_t code = one_in(t, 8) ? (one_in(t, 2) ? 32767 : -32767) : (int16_t)((int)random_below(t, 65535) - 32767);
      ((int16_t *)x.codes->at)[i * k + p] = code;
      sums[p / group] = (p % group ? sums[p / group] : 0) + code;
    }
  }
  return x;
}

// Where the code of row p lies among those of f32_quantize8.
static size_t place_of_8(ck_dtype type, size_t p) {
  static const size_t places[] = {0, 2, 4, 6, 1, 3, 5, 7};
  return type == CK_Q8_0 ? p : p / 8 * 8 + places[p % 8];
}

static double code8_at(ck_dtype type, const operand *codes, size_t i, size_t p) {
  return ((int8_t *)codes->at)[i * codes->n * 2 + place_of_8(type, p)];
}

// Random values as the 8-bit codes of the table, a third of the blocks with the largest codes alone.
static codes random_codes8(test *t, ck_dtype type, size_t m, size_t k) {
  const size_t group = 32 / ck_quant_parts(type);
  const codes x = {matrix(t, CK_F16, m, k / 2, k / 2, 1), matrix(t, CK_F32, m, k / 32, k / 32, 1),
                   matrix(t, CK_F32, m, k / group, k / group, 1)};
  float *row = malloc((k + 1) * sizeof *row);
  for (size_t i = 0; i < m; i++) {
    for (size_t p = 0; p < k; p++) row[p] = (float)random_in(t, -3, 3);
    for (size_t p = 0; p < k; p += 32)
      for (size_t q = p, same = one_in(t, 3); same && q < p + 32; q++) row[q] = one_in(t, 9) ? -2 : 2;
    t->table->f32_quantize8(CK_F32, type, k, row, (int8_t *)x.codes->at + i * k, floats(x.scales) + i * (k / 32),
                            (int32_t *)x.sums->at + i * (k / group));
  }
  free(row);
  return x;
}

// Every code of some blocks of panels is the largest, or Q8_0's the least: sums of products of bytes are largest there.
static void saturate(test *t, ck_dtype type, const operand *packed, size_t count) {
  const size_t nr = t->table->gemm_nr, unit = ck_quant_unit(type), bytes = ck_packed_bytes(type, unit * nr);
  const size_t head = (ck_quant_lowered(type) ? 4 : 2) * nr, own = unit > 32 ? 2 * nr : 0, part = (bytes - head) / (unit / 32);
  for (size_t block = 0; block < count / (unit * nr); block++)
    for (size_t i = 0; one_in(t, 3) && i < unit / 32; i++)
      memset((char *)packed->at + block * bytes + head + i * part + own, type == CK_Q8_0 ? 0x7F + (int)random_below(t, 2) : 0xFF,
             part - own);
}

// With x in 16-bit codes, or in 8-bit ones.
static void quantized_case(test *t, int bits, size_t kind, size_t m, size_t n, size_t k, int place) {
  const ck_dtype type = formats[kind];
  const size_t nr = t->table->gemm_nr;
  situation(t, place, "%s bits=%d m=%zu n=%zu k=%zu place=%d", format_names[kind], bits, m, n, k, place);
  const codes x = (bits == 8 ? random_codes8 : random_codes)(t, type, m, k);
  const operand *packed = quantized_panels(t, type, n, k);
  saturate(t, type, packed, padded_to(n, nr) * k);
  operand *c = values(t, 0, m, n, 0);
  c->written = 1;
  finish f = any_finish(t, 0, c, 1, n, 0);
  if (one_in(t, 2)) f.beta = one_in(t, 2) ? 1 : (float)random_in(t, -2, 2);
  ck_gemm_block block = block_of(c, m, n, k, &f);
  block.codes = x.codes->at, block.code_scales = x.scales->at, block.code_sums = x.sums->at;
  block.b = packed->at, block.b_type = type, block.b_panel = nr * k;
  seal(t);
  (bits == 8 ? t->table->f32_gemm_quantized8 : t->table->f32_gemm_quantized)(&block);
  check_untouched(t);
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < n; j++) {
      double sum = 0, magnitude = 0;
      for (size_t p = 0; p < k; p++) {
        const weight w = weight_at(type, packed->at, nr, k, p, j);
        const double code = bits == 8 ? code8_at(type, x.codes, i, p) : code_at(&x, i, p);
        const double value = code * element(x.scales, i, p / 32);
        sum += value * w.value, magnitude += fabs(value) * w.reach;
      }
      check_finished(t, c, i, j, sum, magnitude, (double)k + 3, &f);
    }
  free((void *)f.held);
}

static void quantized_cases(test *t, int bits) {
  const size_t nr = t->table->gemm_nr;
  for (size_t kind = 0; kind < COUNT(formats); kind++)
    for (size_t m = 1; m <= 17; m++)
      for (size_t n = 1; n <= 2 * nr + 1; n += n + 1 < nr ? 3 : 1)
        quantized_case(t, bits, kind, m, n, ck_quant_unit(formats[kind]) * random_below(t, 4), any_place(t));
}

void check_gemm_quantized(test *t) { quantized_cases(t, 16); }
void check_gemm_quantized8(test *t) { quantized_cases(t, 8); }

void check_dequantize(test *t) {
  const size_t nr = t->table->gemm_nr;
  for (size_t kind = 0; kind < COUNT(formats); kind++)
    for (size_t blocks = 0; blocks < 4; blocks++) {
      const ck_dtype type = formats[kind];
      const size_t k = ck_quant_unit(type) * blocks;
      situation(t, AT_END, "%s k=%zu", format_names[kind], k);
      const operand *packed = quantized_panels(t, type, nr, k);
      operand *y = matrix(t, CK_F32, k, nr, nr, 1);
      y->written = 1;
      seal(t);
      t->table->f32_gemm_unpack_b(type, k, packed->at, floats(y));
      check_untouched(t);
      for (size_t i = 0; i < k * nr; i++) {
        const weight w = weight_at(type, packed->at, nr, k, i / nr, i % nr);
        check_element(t, y, i / nr, i % nr, w.value, 3 * U * w.reach);
      }
    }
}

// Makes blocks of a row of very different sizes, and in a third of the cases one element NaN or infinite: its place, or the row's
// length.
static size_t spread_sizes(test *t, const operand *x) {
  const double sizes[] = {1, 0, 1e30, 1e-38, 1e-28};
  for (size_t p = 0; p < x->n; p++) set_element(x, 0, p, element(x, 0, p) * sizes[p / 32 % COUNT(sizes)]);
  const size_t bad = x->n && one_in(t, 3) ? random_below(t, x->n) : x->n;
  if (bad < x->n) set_element(x, 0, bad, one_in(t, 2) ? NAN : -INFINITY);
  return bad;
}

// The code of x[p] is at most `most`, and off by at most this share of its scale; NaN is the scale where the block is not finite.
static void check_code(test *t, size_t p, double value, double code, double scale, double most, double share, int finite) {
  if (fabs(code) > most) fail(t, "code %zu is %g", p, code);
  if (!isfinite(value) && finite) return;  // beyond f16
  if (finite ? fabs(value - code * scale) > share * scale : !isnan(scale))
    fail(t, "x[%zu] %g has %g by %g", p, value, code, scale);
}

static void quantize_case(test *t, ck_dtype type, size_t k, size_t group, int place) {
  situation(t, place, "type=%d k=%zu group=%zu place=%d", type, k, group, place);
  operand *x = matrix(t, type, 1, k, k, 1), *codes = matrix(t, CK_F16, 1, k, k, 1);
  operand *scales = matrix(t, CK_F32, 1, k / 32, k / 32, 1), *sums = matrix(t, CK_F32, 1, k / group, k / group, 1);
  const size_t bad = spread_sizes(t, x);
  codes->written = scales->written = sums->written = 1;
  seal(t);
  t->table->f32_quantize(type, k, group, x->at, codes->at, scales->at, sums->at);
  check_untouched(t);
  double sum = 0;
  for (size_t p = 0; p < k; p++) {
    const double code = ((int16_t *)codes->at)[p], scale = element(scales, 0, p / 32), value = element(x, 0, p);
    sum = (p % group ? sum : 0) + code;
    if (p % group == group - 1 && sum != ((int32_t *)sums->at)[p / group]) fail(t, "the sum of group %zu is wrong", p / group);
    check_code(t, p, value, code, scale, 32767, 0.51, bad == k || bad / 32 != p / 32);
  }
}

void check_quantize(test *t) {
  for (int type = 0; type < CK_DTYPE_COUNT; type++)
    for (size_t k = 0; k <= 256; k += 32)
      for (size_t group = 16; group <= 32; group *= 2)
        for (int round = 0; round < 4; round++) quantize_case(t, (ck_dtype)type, k, group, any_place(t));
}

// Codes as f32_quantize makes them, but of 8 bits; what sums start with is the format's, and Q8_0's the instruction set's.
static void quantize8_case(test *t, ck_dtype type, size_t kind, size_t k, int place) {
  const ck_dtype format = formats[kind];
  const size_t parts = ck_quant_parts(format), group = 32 / parts;
  situation(t, place, "type=%d %s k=%zu place=%d", type, format_names[kind], k, place);
  operand *x = matrix(t, type, 1, k, k, 1), *codes = matrix(t, CK_F16, 1, k / 2, k / 2, 1);
  operand *scales = matrix(t, CK_F32, 1, k / 32, k / 32, 1), *starts = matrix(t, CK_F32, 1, k / group, k / group, 1);
  const size_t bad = spread_sizes(t, x);
  codes->written = scales->written = starts->written = 1;
  seal(t);
  t->table->f32_quantize8(type, format, k, x->at, codes->at, floats(scales), starts->at);
  check_untouched(t);
  const int offsets[] = {128, 8, 0, 32, 12, 0, 0};
  double sum = 0;
  for (size_t p = 0; p < k; p++) {
    const double code = code8_at(format, codes, 0, p), scale = element(scales, 0, p / 32), value = element(x, 0, p);
    sum = (p % group ? sum : 0) + code;
    if (p % group == group - 1) {
      const int32_t start = ((int32_t *)starts->at)[p / group];
      const float low = element(starts, 0, p / group);
      const int right = ck_quant_lowered(format) ? low == (float)(-scale * sum) || (isnan(scale) && isnan(low))
                                                 : start == -offsets[kind] * sum || (format == CK_Q8_0 && !start);
      if (!right) fail(t, "the start of part %zu is wrong", p / group);
    }
    check_code(t, p, value, code, scale, 127, 0.501, bad == k || bad / 32 != p / 32);
  }
}

void check_quantize8(test *t) {
  for (int type = 0; type < CK_DTYPE_COUNT; type++)
    for (size_t kind = 0; kind < COUNT(formats); kind++)
      for (size_t k = 0; k <= 256; k += 32) quantize8_case(t, (ck_dtype)type, kind, k, any_place(t));
}

// Weight p of row j of [n, k] in ggml's blocks.
static double file_weight(ck_dtype type, const void *blocks, size_t k, size_t p, size_t j) {
  const size_t unit = ck_quant_unit(type), i = p % unit, part = i / 32;
  const unsigned char *at = (const unsigned char *)blocks + (j * (k / unit) + p / unit) * ck_quantized_bytes(type, unit);
  if (type == CK_Q8_0) return half_at(at) * (signed char)at[2 + i];
  if (type == CK_Q4_0) return half_at(at) * ((i < 16 ? at[2 + i] & 15 : at[2 + i - 16] >> 4) - 8.0);
  if (type == CK_MXFP4) return decoded(CK_BF16, word_at(at)) * e2m1[i < 16 ? at[2 + i] & 15 : at[2 + i - 16] >> 4];
  if (type == CK_Q5_1) {
    const unsigned q = (i < 16 ? at[8 + i] & 15u : at[8 + i - 16] >> 4u) + (at[4 + i / 8] >> i % 8 & 1u) * 16;
    return half_at(at) * q + half_at(at + 2);
  }
  if (type == CK_Q4_K || type == CK_Q5_K) {
    const unsigned char *s = at + 4, *nibbles = at + (type == CK_Q5_K ? 48 : 16);
    const unsigned scale = part < 4 ? s[part] & 63u : (s[part + 4] & 15u) + (s[part - 4] >> 6) * 16u;
    const unsigned low = part < 4 ? s[part + 4] & 63u : (s[part + 4] >> 4) + (s[part] >> 6) * 16u;
    const unsigned byte = nibbles[i / 64 * 32 + i % 32], fifth = type == CK_Q5_K ? at[16 + i % 32] >> part & 1u : 0;
    const unsigned q = (i % 64 < 32 ? byte & 15 : byte >> 4) + 16 * fifth;
    return half_at(at) * scale * q - half_at(at + 2) * low;
  }
  const unsigned low = at[i / 128 * 64 + i % 64] >> (i % 128 < 64 ? 0 : 4) & 15;
  const unsigned high = at[128 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
  return half_at(at + 208) * (signed char)at[192 + i / 16] * ((double)(low + 16 * high) - 32);
}

static void pack_case(test *t, const void *of, size_t threads) {
  const size_t *s = of, kind = s[0], n = s[1], nr = t->table->gemm_nr;
  const ck_dtype type = formats[kind];
  const size_t unit = ck_quant_unit(type), k = unit * s[2], count = padded_to(n, nr) * k;
  situation(t, AT_END, "%s n=%zu k=%zu threads=%zu", format_names[kind], n, k, threads);
  operand *blocks = matrix(t, CK_F16, 1, ck_quantized_bytes(type, n * k) / 2, 0, 1);
  operand *packed = matrix(t, CK_F16, 1, ck_packed_bytes(type, count) / 2, 0, 1);
  unsigned char *bytes = blocks->at;
  for (size_t i = 0; i < 2 * blocks->n; i++) bytes[i] = (unsigned char)random_bits(t);
  for (size_t i = 0; i < n * k / unit; i++) {  // scales that are numbers
    unsigned char *block = bytes + i * ck_quantized_bytes(type, unit);
    block[type == CK_Q6_K ? 209 : 1] &= 0xBF;
    if (ck_quant_lowered(type)) block[3] &= 0xBF;
  }
  packed->written = 1;
  seal(t);
  ck_pack_quantized(t->table, type, n, k, blocks->at, packed->at, threads);
  check_untouched(t);
  for (size_t j = 0; threads == 1 && j < padded_to(n, nr); j++)
    for (size_t p = 0; p < k; p++) {
      const double expected = j < n ? file_weight(type, blocks->at, k, p, j) : 0;
      const double found = weight_at(type, packed->at, nr, k, p, j).value;
      if (found != expected) fail(t, "weight (%zu, %zu) is %g, not %g", p, j, found, expected);
    }
}

void check_pack_quantized(test *t) {
  const size_t nr = t->table->gemm_nr, widths[] = {1, nr - 1, nr, 3 * nr + 2};
  for (size_t kind = 0; kind < COUNT(formats); kind++)
    for (size_t n = 0; n < COUNT(widths); n++)
      for (size_t blocks = 0; blocks < 4; blocks++) check_threads(t, pack_case, (size_t[]){kind, widths[n], blocks});
}

typedef struct shape {
  size_t kind, m, n, k;
  int tiles;  // 2: the driver's choice
} shape;

// The driver's own quantising adds half a code, and the roundings of the code, to each x; tiles round x and weights instead.
static void driver_case(test *t, const void *of, size_t threads) {
  const shape *s = of;
  const ck_dtype type = formats[s->kind];
  const size_t nr = t->table->gemm_nr;
  const ck_split split = s->tiles == 2 ? CK_SPLIT_ONE
                         : s->tiles    ? (ck_split)(CK_SPLIT_THREE + random_below(t, 3))
                                       : CK_SPLIT_NARROW;
  ck_kernels table = *t->table;
  if (s->tiles == 2) table.tiles = CK_TILES_UNIT;
  const int x8 = one_in(t, 2), bytes = x8 && t->table->bytes >= (type == CK_Q8_0 ? CK_BYTES_ALL : CK_BYTES_SMALL);
  situation(t, AT_END, "driver %s m=%zu n=%zu k=%zu tiles=%d split=%d x8=%d threads=%zu", format_names[s->kind], s->m, s->n, s->k,
            s->tiles, split, x8, threads);
  operand *a = values(t, 1, s->m, s->k, 0), *c = values(t, 1, s->m, s->n, 0);
  const operand *packed = quantized_panels(t, type, s->n, s->k);
  c->written = 1;
  const finish f = any_finish(t, 1, c, 1, s->n, 0);
  ck_gemm call = {.batch = 1, .m = s->m, .n = s->n, .k = s->k, .alpha = (float)f.alpha, .activation = f.activation};
  call.a = a->at, call.a_rs = a->rs, call.a_cs = 1, call.a_type = a->type;
  call.c = c->at, call.c_rs = c->rs, call.c_type = c->type, call.packed = packed->at, call.b_type = type;
  call.bias = floats(f.bias);
  if (f.residual) call.residual = f.residual->at, call.residual_rs = f.residual->rs, call.residual_type = f.residual->type;
  seal(t);
  call.split = split, call.x8 = x8;
  if ((s->tiles == 1 ? ck_tile_gemm : ck_f32_gemm)(&table, &call, threads)) fail(t, "no memory");
  check_untouched(t);
  for (size_t i = 0; threads == 1 && i < s->m; i++)
    for (size_t j = 0; j < s->n; j += 1 + j % 7) {
      double sum = 0, magnitude = 0, codes = 0;
      for (size_t first = 0; first < s->k; first += 32) {
        double largest = 0, weights = 0;
        for (size_t p = first; p < first + 32; p++) {
          const weight w = weight_at(type, packed->at, nr, s->k, p, j);
          const double value = element(a, i, p);
          sum += value * w.value, magnitude += fabs(value) * w.reach;
          largest = fmax(largest, fabs(value)), weights += fabs(w.value);
        }
        codes += 0.51 / (bytes ? 127 : 32767) * largest * weights;
      }
      const double more = s->tiles ? 3 + pieces_drop(ck_tile_order(split), s->k) : magnitude ? codes / magnitude / U : 0;
      const double roundings = (double)s->k + 3 + more;
      check_finished(t, c, i, j, sum, magnitude, roundings, &f);
    }
  free((void *)f.held);
}

void check_gemm_quantized_driver(test *t) {
  const shape shapes[] = {
      {0, 1, 70, 2304, 0},  {1, 5, 33, 2560, 0}, {2, 3, 90, 2304, 0},  {3, 4, 17, 2560, 0},  {0, 70, 130, 64, 0},
      {1, 150, 40, 96, 0},  {2, 33, 65, 256, 0}, {3, 20, 100, 512, 0}, {4, 1, 70, 2304, 0},  {4, 37, 50, 160, 0},
      {0, 40, 70, 1056, 1}, {1, 65, 33, 96, 1},  {2, 33, 90, 768, 1},  {3, 70, 100, 512, 1}, {4, 37, 50, 608, 1},
      {1, 280, 2, 8160, 0},  // more codes than are made at a time
      {1, 5, 33, 9280, 0},  {2, 3, 40, 8704, 0}, {1, 64, 40, 8448, 2}};  // K in pieces
  for (size_t i = 0; i < COUNT(shapes); i++)
    for (int round = 0; round < 4; round++) check_threads(t, driver_case, &shapes[i]);
}
