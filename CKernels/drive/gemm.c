// GEMM around the block kernel: K in slices, rows and columns in blocks, B packed when it comes unpacked, threads over blocks.
//
// Operands that are not f32 are widened where they are packed or copied for a block anyway, and C narrowed where a tile of it is
// done.
//
// The slices depend on K alone and threads cut only rows and columns, so an element's arithmetic never depends on either. A long
// K of few columns comes in pieces, each a product of its own: gemm_long.c.
// Preconditions: every size product of the call, and each matrix's extent in elements, fits size_t.
#include <string.h>

#include "../include/ck_drive.h"
#include "../include/ck_parallel.h"
#include "gemm.h"
#include "gemm_tile.h"
#include "staging.h"

enum {
  MOST_COLUMNS = 2048,       // columns of one block: packing its A is then a small share of it
  MOST_COLUMNS_KEPT = 512,  // and where a block of results is summed or multiplied as floats, or B is quantised: it stays in L2
  UNPACKED_FLOATS = 1 << 22,  // unpacked B is packed this much at a time (16 MiB): A is packed for each
  BLOCK_WORK = 1 << 18,  // and the least worth cutting a block for
  BATCH_WORK = 1 << 24,  // entries below this are shared out whole when there are enough of them
  BLOCKS_A_THREAD = 4,
  FEWEST_COLUMNS_TO_PACK = 768,  // of a block that repay packing A
  ALIASED_COLUMNS_TO_PACK = 96,  // where rows of A lie a multiple of 2 KiB apart and so compete for the same cache sets
  ALIASING_STRIDE = 512,
  MOST_ROWS_IN_PLACE = 12,  // rows that do not repay packing B; more where its rows lie near each other, and where they lie so
  NEAR_STRIDE = 512,  // near that a panel's lines meet in no few cache sets, up to where packing is a small share
  MOST_ROWS_IN_PLACE_NEAR = 48,
  NEARER_STRIDE = 256,
  MOST_ROWS_IN_PLACE_NEARER = 256,
  MOST_DEPTH_QUANTIZED = 2048,  // of a slice of quantised B, and rows of its blocks: their codes stay in L2
  MOST_ROWS_QUANTIZED = 64,
  CODES_OF_A = 1 << 21,  // elements of A that are codes at a time
  CODES_A_PIECE = 1 << 15,  // worth handing to another thread
};

// Rows of A as codes, with their scales and sums.
typedef struct coded_rows {
  void *codes;  // of 16 bits, or of 8
  float *scales;
  int32_t *sums;
} coded_rows;

// What every entry of a call shares.
typedef struct plan {
  const ck_kernels *table;
  const ck_gemm *call;
  size_t slice;  // depth of a K slice
  size_t rows, columns;  // of a block
  size_t in_place;  // leading columns of unpacked B that are read in place
  size_t chunk;  // columns of B packed at a time
  int whole;  // packed B by few rows, which go through all its slices at once
  int quantized;  // packed B in a quantised format, by A in codes
  int x8;  // of 8 bits
  size_t packed_a;  // floats of a block's packed A slice, 0 where A is read in place
  size_t widened_a;  // floats of a block's A slice, or of all of them with `whole`, as f32; 0 where it is f32
  size_t coded;  // rows of A that are codes at a time, before all of their blocks
  coded_rows codes;  // those: slice after slice [coded, depth], and likewise their scales and sums
  size_t kept_c;  // floats of a block of C that is not f32 while it is summed
  size_t kept_value;  // floats of a block of A V
  size_t kept_residual;  // floats of a block's copy of a residual that C's first slice would overwrite
  size_t b_piece, piece;  // floats of scratch a participant needs, for B and for a block
  float *b_pieces, *pieces;
} plan;

// Rows [i, i + m) and columns [j, j + n) of entry z.
typedef struct region {
  const plan *plan;
  size_t z, i, m, j, n;
  const void *b;  // packed panels from column j on, or B in place from there
  const void *value;  // panels of V, or NULL
  ck_dtype b_type;
  size_t b_panel, b_ks;  // floats from panel to panel; row stride in place, 0 for packed panels
  float *pieces;  // scratch by participant
} region;

size_t ck_f32_packed_size(const ck_kernels *table, size_t n, size_t k) { return round_up(n, table->gemm_nr) * k; }

typedef struct packing {
  const ck_kernels *table;
  size_t n, k;
  ck_dtype type;
  const void *b;  // [k, n] by strides
  size_t b_ks, b_ns;
  void *packed;
} packing;

// One column of a panel: k elements of any type and stride, to packed[p * nr].
static void widen_column(const packing *p, const void *column, float *packed) {
  enum { RUN = 64 };
  const size_t nr = p->table->gemm_nr, run = p->b_ks == 1 ? RUN : 1;
  float values[RUN];
  for (size_t k = 0; k < p->k; k += run) {
    const size_t count = MIN(run, p->k - k);
    p->table->f32_widen(p->type, count, staging_element(p->type, column, k * p->b_ks), values);
    for (size_t q = 0; q < count; q++) packed[(k + q) * nr] = values[q];
  }
}

// Columns [j, end) of B that is not f32 as one panel, zeros beyond.
static void widen_panel(const packing *p, size_t j, size_t end) {
  const size_t nr = p->table->gemm_nr;
  float *panel = (float *)p->packed + j * p->k;
  if (end - j < nr) memset(panel, 0, nr * p->k * sizeof *panel);
  if (p->b_ns == 1)
    for (size_t k = 0; k < p->k; k++)
      p->table->f32_widen(p->type, end - j, staging_element(p->type, p->b, k * p->b_ks + j), panel + k * nr);
  else
    for (size_t c = j; c < end; c++) widen_column(p, staging_element(p->type, p->b, c * p->b_ns), panel + c - j);
}

static void pack_panels(const void *context, size_t first, size_t last) {
  const packing *p = context;
  const size_t nr = p->table->gemm_nr, j = first * nr, end = MIN(last * nr, p->n);
  if (p->type == CK_F32)
    p->table->f32_gemm_pack_b(end - j, p->k, staging_element(CK_F32, p->b, j * p->b_ns), p->b_ks, p->b_ns,
                              (float *)p->packed + j * p->k);
  else
    for (size_t panel = j; panel < end; panel += nr) widen_panel(p, panel, MIN(panel + nr, end));
}

static void run_packing(const packing *p, ck_task body, size_t threads) {
  const size_t panels = pieces_of(p->n, p->table->gemm_nr), panel = p->table->gemm_nr * p->k;
  if (p->n && p->k) ck_parallel(panels, MAX(panels / (threads * BLOCKS_A_THREAD + 1), (1 << 15) / panel + 1), threads, body, p);
}

// Rows [k, end) of a panel of 16-bit elements as they are, some at a time, all columns of which stay in L1; k is even.
static void keep_rows(const packing *p, size_t j, size_t k, size_t end) {
  enum { RUN = 64 };
  const size_t nr = p->table->gemm_nr;
  for (; k < end; k += RUN) {
    const size_t steps = MIN(RUN, end - k), paired = p->type == CK_BF16 ? steps / 2 * 2 : 0;
    uint16_t *to = (uint16_t *)p->packed + j * p->k + k * nr;
    for (size_t c = 0; c < nr; c++) {
      const int inside = j + c < p->n;
      const uint16_t zero = 0, *from = inside ? (const uint16_t *)p->b + (j + c) * p->b_ns + k * p->b_ks : &zero;
      const size_t step = inside ? p->b_ks : 0;
      for (size_t q = 0; q < paired; q += 2) to[q * nr + 2 * c] = from[q * step], to[q * nr + 2 * c + 1] = from[(q + 1) * step];
      for (size_t q = paired; q < steps; q++) to[q * nr + c] = from[q * step];
    }
  }
}

// Panels of 16-bit elements. Pairs of bf16 that lie together in B are transposed as floats are.
static void keep_panels(const void *context, size_t first, size_t last) {
  const packing *p = context;
  const size_t nr = p->table->gemm_nr;
  const int words = p->type == CK_BF16 && p->b_ks == 1 && p->b_ns % 2 == 0 && (uintptr_t)p->b % sizeof(float) == 0;
  for (size_t j = first * nr; j < MIN(last * nr, p->n); j += nr) {
    const size_t paired = words ? p->k / 2 * 2 : 0;
    if (paired)
      p->table->f32_gemm_pack_b(MIN(nr, p->n - j), paired / 2, staging_element(CK_BF16, p->b, j * p->b_ns), 1, p->b_ns / 2,
                                (float *)(void *)((uint16_t *)p->packed + j * p->k));
    keep_rows(p, j, paired, p->k);
  }
}

void ck_pack_b(const ck_kernels *table, ck_dtype type, size_t n, size_t k, const void *b, size_t b_ks, size_t b_ns, void *packed,
               size_t threads) {
  run_packing(&(packing){table, n, k, type, b, b_ks, b_ns, packed}, type == CK_F32 ? pack_panels : keep_panels, threads);
}

// [m, n] of any type as floats, rows one after the other.
static void widen_block(const ck_kernels *table, ck_dtype type, size_t m, size_t n, const void *from, size_t rs, size_t cs,
                        float *to) {
  if (cs == 1)
    staging_in(table, type, from, rs, 0, 0, m, n, to, n);
  else
    for (size_t i = 0; i < m; i++)
      for (size_t j = 0; j < n; j++) table->f32_widen(type, 1, staging_element(type, from, i * rs + j * cs), to + i * n + j);
}

// Row i of those at hand, in a slice of this depth from k on.
static coded_rows codes_at(const plan *p, size_t i, size_t k, size_t depth) {
  const size_t at = p->coded * k + i * depth, scale = at / CK_QUANT_ROWS;
  return (coded_rows){(char *)p->codes.codes + at * (p->x8 ? sizeof(int8_t) : sizeof(int16_t)), p->codes.scales + scale,
                      p->codes.sums + scale * ck_quant_parts(p->call->b_type)};
}

// Rows [first, last) of a region; A has unit column stride.
static void code_rows(const void *context, size_t first, size_t last) {
  const region *r = context;
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  for (size_t i = first; i < last; i++)
    for (size_t k = 0; k < call->k; k += p->slice) {
      const void *x = staging_element(call->a_type, call->a, r->z * call->a_bs + (r->i + i) * call->a_rs + k);
      const size_t depth = MIN(p->slice, call->k - k);
      const coded_rows to = codes_at(p, i, k, depth);
      if (p->x8)
        p->table->f32_quantize8(call->a_type, call->b_type, depth, x, to.codes, to.scales, to.sums);
      else
        p->table->f32_quantize(call->a_type, depth, CK_QUANT_ROWS / ck_quant_parts(call->b_type), x, to.codes, to.scales,
                               to.sums);
    }
}

static void multiply(const plan *p, const ck_gemm_block *block) {
  const ck_kernels *table = p->table;
  if (p->quantized)
    (p->x8 ? table->f32_gemm_quantized8 : table->f32_gemm_quantized)(block);
  else
    (block->b_type == CK_F32 && !p->whole ? table->f32_gemm_block : table->f32_gemm_stream)(block);
}

// A slice of A by that of V which lies where `block` has B's: to `kept`, which the last slice of C is multiplied by.
static void multiply_value(const plan *p, ck_gemm_block *block, const void *b, const float *bias, int last, float *kept) {
  ck_gemm_block value = *block;
  value.b = b, value.c = kept, value.c_rs = block->n, value.bias = last ? bias : 0;
  value.residual = value.y = 0, value.activation = CK_IDENTITY;
  multiply(p, &value);
  if (last) block->factor = kept, block->factor_rs = block->n;
}

// One block of C through every K slice. Neighbouring blocks share columns, so their B stays in the shared cache.
static void run_block(const region *r, size_t index) {
  const plan *p = r->plan;
  const ck_gemm *call = p->call;
  const ck_kernels *table = p->table;
  const size_t blocks = pieces_of(r->m, p->rows), nr = table->gemm_nr;
  const size_t b_ks = r->b_ks ? r->b_ks : nr;
  const size_t above = index % blocks * p->rows, i = r->i + above, j = index / blocks * p->columns;
  const void *a = staging_element(call->a_type, call->a, r->z * call->a_bs + i * call->a_rs);
  const size_t c_at = r->z * call->c_bs + i * call->c_rs + r->j + j;
  float *packed_a = r->pieces + ck_participant() * p->piece, *widened_a = packed_a + p->packed_a;
  float *kept_c = widened_a + p->widened_a, *kept_value = kept_c + p->kept_c, *kept_residual = kept_value + p->kept_value;
  ck_gemm_block block = {
      .m = MIN(p->rows, r->m - above),
      .n = MIN(p->columns, r->n - j),
      .a_rs = call->a_rs,
      .a_packed = p->packed_a != 0,
      .b_type = r->b_type,
      .b_panel = r->b_panel,
      .b_ks = r->b_ks,
      .alpha = call->k ? call->alpha : 0,
      .beta = call->beta,
  };
  void *c = (char *)call->c + c_at * ck_dtype_size(call->c_type);
  if (p->kept_c)
    block.c = kept_c, block.c_rs = block.n;
  else if (call->c_type == CK_F32)
    block.c = c, block.c_rs = call->c_rs;
  if (p->kept_c && call->beta != 0) widen_block(table, call->c_type, block.m, block.n, c, call->c_rs, 1, kept_c);
  const float *bias = call->bias ? call->bias + r->j + j : 0;
  const float *value_bias = call->value_bias ? call->value_bias + r->j + j : 0;
  const size_t residual_at = r->z * call->residual_bs + i * call->residual_rs + r->j + j;
  const void *residual = call->residual ? staging_element(call->residual_type, call->residual, residual_at) : 0;
  block.residual_rs = call->residual_rs, block.residual_type = call->residual_type;
  if (p->kept_residual) {
    widen_block(table, CK_F32, block.m, block.n, residual, call->residual_rs, 1, kept_residual);
    residual = kept_residual, block.residual_rs = block.n;
  }
  const size_t depth = p->whole ? call->k : p->slice;
  for (size_t k = 0; k == 0 || k < call->k; k += depth) {
    block.k = MIN(depth, call->k - k), block.slice = MIN(p->slice, block.k);
    const float *slice = staging_element(call->a_type, a, k * call->a_cs);
    size_t rs = call->a_rs, cs = call->a_cs;
    if (p->widened_a) {
      widen_block(table, call->a_type, block.m, block.k, slice, rs, cs, widened_a);
      slice = widened_a, rs = block.a_rs = block.k, cs = 1;
    }
    block.a = p->packed_a ? packed_a : slice;
    const size_t b_at = ck_packed_bytes(r->b_type, j / nr * r->b_panel + k * b_ks);
    const int last = k + block.k == call->k;
    block.b = (const char *)r->b + b_at;
    if (p->packed_a) table->f32_gemm_pack_a(block.m, block.k, slice, rs, cs, packed_a);
    if (p->quantized) {
      const coded_rows x = codes_at(p, above, k, block.k);
      block.codes = x.codes, block.code_scales = x.scales, block.code_sums = x.sums;
    }
    if (last) block.bias = bias, block.residual = residual, block.activation = call->activation;
    if (last && call->c_type != CK_F32) block.y = c, block.y_rs = call->c_rs, block.y_type = call->c_type;
    if (r->value) multiply_value(p, &block, (const char *)r->value + b_at, value_bias, last, kept_value);
    multiply(p, &block);
    block.beta = 1;
  }
}

static void run_blocks(const void *context, size_t first, size_t last) {
  for (size_t index = first; index < last; index++) run_block(context, index);
}

static void run_region(const region *r, size_t threads) {
  const plan *p = r->plan;
  ck_parallel(pieces_of(r->m, p->rows) * pieces_of(r->n, p->columns), 1, threads, run_blocks, r);
}

// Rows of A as codes, as many as there is room for, and what they make.
static void run_codes(region *r, size_t threads) {
  const size_t m = r->m;
  for (r->i = 0; r->i < m; r->i += r->plan->coded) {
    r->m = MIN(r->plan->coded, m - r->i);
    ck_parallel(r->m, CODES_A_PIECE / r->plan->call->k + 1, threads, code_rows, r);
    run_region(r, threads);
  }
}

// One entry: straight through packed B, or through the rest chunk by chunk; whole panels of unpacked B in place for few rows.
static void run_entry(const plan *p, size_t z, size_t threads, float *b_scratch, float *pieces) {
  const ck_gemm *call = p->call;
  const size_t nr = p->table->gemm_nr;
  if (call->packed || !call->k) {
    const void *b = call->packed ? call->packed : call->b;
    const ck_dtype type = call->packed && call->k ? call->b_type : CK_F32;
    region all = {p, z, 0, call->m, 0, call->n, b, call->value, type, gemm_panel(p->table, call), 0, pieces};
    if (p->quantized)
      run_codes(&all, threads);
    else
      run_region(&all, threads);
    return;
  }
  const void *b = staging_element(call->b_type, call->b, z * call->b_bs);
  if (p->in_place) run_region(&(region){p, z, 0, call->m, 0, p->in_place, b, 0, CK_F32, nr, call->b_rs, pieces}, threads);
  for (size_t j = p->in_place; j < call->n; j += p->chunk) {
    const void *from = staging_element(call->b_type, b, j * call->b_cs);
    packing chunk = {p->table, MIN(p->chunk, call->n - j), call->k, call->b_type, from, call->b_rs, call->b_cs, b_scratch};
    run_packing(&chunk, pack_panels, threads);
    run_region(&(region){p, z, 0, call->m, j, chunk.n, b_scratch, 0, CK_F32, nr * call->k, 0, pieces}, threads);
  }
}

static void run_entries(const void *context, size_t first, size_t last) {
  const plan *p = context;
  const size_t own = ck_participant();
  for (size_t z = first; z < last; z++) run_entry(p, z, 1, p->b_pieces + own * p->b_piece, p->pieces + own * p->piece);
}

// Halves blocks, the side with more tiles first, until every thread has some or they would be too small.
static void cut_blocks(plan *p, size_t threads, size_t work) {
  const size_t mr = p->table->gemm_mr, nr = p->table->gemm_nr, m = p->call->m, n = p->in_place ? p->in_place : p->chunk;
  p->rows = balanced(m, p->quantized ? MOST_ROWS_QUANTIZED : p->table->gemm_mc, mr);
  const int wide_blocks = p->call->c_type == CK_F32 && !p->call->value && !p->quantized;
  p->columns = balanced(n, wide_blocks ? MOST_COLUMNS : MOST_COLUMNS_KEPT, nr);
  const size_t wanted = threads > 1 ? MIN(threads * BLOCKS_A_THREAD, work / BLOCK_WORK) : 1;
  while (pieces_of(m, p->rows) * pieces_of(n, p->columns) < wanted) {
    const size_t tall = p->rows / mr, wide = p->columns / nr;
    if (tall < 8 && wide < 2) break;
    if (tall >= 8 && tall >= wide)
      p->rows = round_up(p->rows / 2, mr);
    else
      p->columns = round_up(p->columns / 2, nr);
  }
}

// A product that is not empty, by FMA or of codes, K uncut.
static int32_t run_gemm(const ck_kernels *table, const ck_gemm *call, size_t threads) {
  const size_t k = call->k, n = call->n, work = gemm_work(call);
  const int quantized = k && call->packed && call->b_type >= CK_DTYPE_COUNT;
  const int by_entry =
      !quantized && threads > 1 && work < BATCH_WORK && call->batch >= threads && work * call->batch >= GEMM_CALLER_WORK;
  if (!by_entry && work < GEMM_CALLER_WORK) threads = 1;

  plan p = {.table = table, .call = call, .quantized = quantized};
  p.x8 = quantized && call->x8 && table->bytes >= (call->b_type == CK_Q8_0 ? CK_BYTES_ALL : CK_BYTES_SMALL);
  p.slice = quantized ? balanced(k, MOST_DEPTH_QUANTIZED, ck_quant_unit(call->b_type)) : balanced(k, table->gemm_kc, 4);
  const size_t nr = table->gemm_nr;
  const int strided = call->a_cs != 1 && call->a_type == CK_F32;
  p.whole = k && call->packed && !quantized && !strided && gemm_streams_whole(call->m, call->b_type);
  const int unpacked = k && !call->packed;  // as floats in panels
  const size_t most_rows = call->b_rs <= NEARER_STRIDE ? MOST_ROWS_IN_PLACE_NEARER
                           : call->b_rs <= NEAR_STRIDE ? MOST_ROWS_IN_PLACE_NEAR
                                                       : MOST_ROWS_IN_PLACE;
  const int readable = unpacked && call->b_type == CK_F32 && call->b_cs == 1;
  if (readable && call->a_cs == 1 && call->m <= most_rows) p.in_place = n / (nr / 2) * (nr / 2);
  p.chunk = unpacked ? MIN(round_up(n - p.in_place, nr), MAX(UNPACKED_FLOATS / k / nr, 1) * nr) : n;
  cut_blocks(&p, by_entry ? 1 : threads, work);
  const size_t columns_to_pack = call->a_rs % ALIASING_STRIDE ? FEWEST_COLUMNS_TO_PACK : ALIASED_COLUMNS_TO_PACK;
  const size_t columns_of_both = call->value ? 2 * p.columns : p.columns;
  const int repays = call->m >= GEMM_FEWEST_ROWS_TO_PACK && columns_of_both >= columns_to_pack;
  const size_t a_floats = round_up(p.rows, 16) * p.slice;
  if (k && !p.in_place && !quantized && (strided || repays)) p.packed_a = a_floats;
  if (call->a_type != CK_F32 && !quantized) p.widened_a = p.whole ? round_up(p.rows, 16) * k : a_floats;
  const size_t block = round_up(p.rows * p.columns, 16);
  if (call->c_type != CK_F32 && (k > p.slice || call->beta != 0)) p.kept_c = block;
  if (call->value) p.kept_value = block;
  const int overwritten = call->residual && call->residual == call->c && k > p.slice && call->c_type == CK_F32;
  if (overwritten) p.kept_residual = block;
  p.piece = p.packed_a + p.widened_a + p.kept_c + p.kept_value + p.kept_residual;
  p.b_piece = unpacked ? round_up(p.chunk * k, 16) : 0;

  const size_t blocks = pieces_of(call->m, p.rows) * pieces_of(n, p.columns);
  const size_t participants = MAX(MIN(threads, by_entry ? call->batch : blocks), 1);
  if (p.piece && !(p.pieces = ck_scratch(CK_SCRATCH_A, p.piece * participants))) return -1;
  if (quantized) {
    p.coded = MIN(call->m, MAX(CODES_OF_A / k / p.rows, 1) * p.rows);
    const size_t elements = p.coded * k, codes = round_up(elements / (p.x8 ? 4 : 2), 16), scales = round_up(elements / 32, 16);
    float *room = ck_scratch(CK_SCRATCH_B, codes + scales + scales * ck_quant_parts(call->b_type));
    if (!room) return -1;
    p.codes = (coded_rows){room, room + codes, (int32_t *)(room + codes + scales)};
  }
  if (p.b_piece && !(p.b_pieces = ck_scratch(CK_SCRATCH_B, p.b_piece * (by_entry ? participants : 1)))) return -1;
  if (by_entry)
    ck_parallel(call->batch, 1, threads, run_entries, &p);
  else
    for (size_t z = 0; z < call->batch; z++) run_entry(&p, z, threads, p.b_pieces, p.pieces);
  return 0;
}

int32_t ck_f32_gemm(const ck_kernels *table, const ck_gemm *call, size_t threads) {
  if (!call->batch || !call->m || !call->n) return 0;
  gemm_driver *run = gemm_tile_pays(table, call) ? ck_tile_gemm : run_gemm;
  return gemm_long_depth(call) < call->k ? gemm_long(table, call, run, threads) : run(table, call, threads);
}
