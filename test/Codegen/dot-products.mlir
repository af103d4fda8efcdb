// The dot-product instruction of each target is used, and nothing is called.
// RUN: isthmus-opt %S/../Inputs/two-layers.mlir --fm-quantize-weights=format=int4 --canonicalize --convert-fm-to-sched=target=x86-64-avx2 | isthmus-translate --kernels-to-asm | FileCheck %s --check-prefix=AVX2
// RUN: isthmus-opt %S/../Inputs/two-layers.mlir --fm-quantize-weights=format=int4 --canonicalize --convert-fm-to-sched=target=x86-64-avx512-vnni | isthmus-translate --kernels-to-asm | FileCheck %s --check-prefix=VNNI
// RUN: isthmus-opt %S/../Inputs/two-layers.mlir --fm-quantize-weights=format=int4 --canonicalize --convert-fm-to-sched=target=aarch64-dotprod | isthmus-translate --kernels-to-asm | FileCheck %s --check-prefix=NEON
// RUN: isthmus-opt %S/../Inputs/two-layers.mlir --fm-quantize-weights=format=int4 --canonicalize --convert-fm-to-sched=target=aarch64 | isthmus-translate --kernels-to-asm | FileCheck %s --check-prefix=ARM
// RUN: isthmus-opt %S/../Inputs/two-layers.mlir --fm-quantize-weights=format=int4 --canonicalize --convert-fm-to-sched=target=x86-64-amx | isthmus-translate --kernels-to-asm | FileCheck %s --check-prefix=AMX

// AMX-LABEL: {{^}}linear_int4_32x32:
// AMX-NOT: call
// AMX: vpdpbusd {{.*}}zmm
// AMX-LABEL: {{^}}linear_int8_64x32:
// AMX-NOT: call
// AMX: ldtilecfg
// AMX: tileloadd
// AMX: tileloadd
// AMX: tdpbssd
// AMX: tilestored
// AMX: tilerelease

// AVX2-LABEL: {{^}}linear_int4_32x32:
// AVX2-NOT: call
// AVX2: vpmaddubsw {{.*}}ymm
// AVX2-LABEL: {{^}}linear_int8_64x32:
// AVX2-NOT: call
// AVX2: vpsignb {{.*}}ymm
// AVX2: vpmaddubsw {{.*}}ymm
// AVX2: vpmaddwd {{.*}}ymm

// VNNI-LABEL: {{^}}linear_int4_32x32:
// VNNI-NOT: call
// VNNI: vpdpbusd {{.*}}zmm
// VNNI-LABEL: {{^}}linear_int8_64x32:
// VNNI: vpdpbusd {{.*}}zmm

// NEON-LABEL: {{^}}linear_int4_32x32:
// NEON-NOT: bl{{ }}
// NEON: sdot {{.*}}.4s

// ARM-LABEL: {{^}}linear_int4_32x32:
// ARM-NOT: sdot
// ARM: mla
