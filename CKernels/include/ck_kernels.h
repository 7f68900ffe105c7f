// The kernel table: one slot per registry line, chosen once per process for the best ISA the machine runs.
#ifndef CK_KERNELS_H
#define CK_KERNELS_H

#include "ck_types.h"
#include "ck_conv.h"
#include "ck_data.h"
#include "ck_random.h"
#include "ck_attention.h"
#include "ck_position.h"
#include "ck_image.h"
#include "ck_sparse.h"
#include "ck_routing.h"
#include "ck_tile.h"
#include "ck_int8.h"

#define CK_TILES_DOT 1   // dot products of vectors
#define CK_TILES_UNIT 6  // a matrix unit, which takes int8 as well

#define CK_BYTES_SMALL 1  // one factor is of at most 6 bits
#define CK_BYTES_ALL 2

struct ck_kernels {
  ck_isa isa;
  size_t gemm_mr, gemm_nr;  // tile of f32_gemm_block; weights are packed in panels of gemm_nr columns
  size_t gemm_mc, gemm_kc;  // rows and depth of the A block the drivers keep in L2
  size_t attention_keys;    // most keys in one online-softmax step
  size_t attention_rows;    // and the most query rows
  int32_t tiles;            // products of bf16 pieces (ck_tile.h) that pay; 0 where tiles are imitated, for checks alone
  int32_t bytes;            // products of bytes that pay; 0 where there are none in few instructions
#define CK_KERNEL(name, params) void(*name) params;
#include "../kernels.inc"
#undef CK_KERNEL
};

// The table in use: best ISA of this machine, lowered by QUERN_MAX_ISA.
const ck_kernels *ck_kernels_best(void);
// The table of one ISA, or NULL where this machine or build cannot run it.
const ck_kernels *ck_kernels_for(ck_isa isa);
// The name that QUERN_MAX_ISA takes, such as "avx512vnni"; NULL for an unknown value.
const char *ck_isa_name(ck_isa isa);
// The ISA a name stands for, or -1.
int32_t ck_isa_parse(const char *name);

// The registry, for tests and benchmarks.
size_t ck_kernel_count(void);
const char *ck_kernel_name(size_t index);

#endif
