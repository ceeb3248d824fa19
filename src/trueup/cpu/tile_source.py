"""LLVM's intermediate representation of y = W x + high low by AMX: tiles in bf16, their products summed in fp32.

32 rows of W are decoded to bf16 where they are 4-bit, then multiplied tile by tile into every column. A tile is 16 rows
of 64 bytes; the second operand holds pairs of its inner dimension side by side, so x is packed first, each thread a
share. `y`, `high`, `low` and `x` are row-major; `high` is bf16 and its inner dimension padded to whole tiles.
"""

from __future__ import annotations

import functools

from trueup.cpu.kernel_source import ARGUMENTS, BLOCK, NUM_POINTERS
from trueup.cpu.tile_operands import COLUMNS, DEEP, EXPAND, LAYOUT, PACK, ROWS

STRIP = 32  # columns at a time: two tiles


@functools.cache
def module(kind: str, transposed: bool = False) -> str:
    """The whole module, of y or its transpose; `entry` as in `kernel_source`."""
    named = {"BLOCK": BLOCK, "ROWS": ROWS, "DEEP": DEEP, "COLUMNS": COLUMNS, "STRIP": STRIP}
    multiplied = "".join(_multiplied(wide) for wide in (2, 1))
    text = _DECLARED + PACK + multiplied + EXPAND[kind] + _write(transposed) + _entry(kind)
    for name, value in named.items():
        text = text.replace(name, str(value))
    return text


def _entry(kind: str) -> str:
    loads = "".join(
        f"""
  %{name}.at = getelementptr i64, ptr %arguments, i64 {place}
  %{name} = load {"ptr" if place < NUM_POINTERS else "i64"}, ptr %{name}.at, align 8"""
        for place, name in enumerate(ARGUMENTS)
    )
    stride, lower, step = LAYOUT[kind]
    of_weight = f"ptr %a, i64 {stride}, i64 {lower}, i64 {step}"
    of_high = "ptr %high.rows, i64 %high.bytes, i64 %high.lower, i64 DEEP"
    return _ENTRY.replace("LOADS", loads).replace("OF_WEIGHT", of_weight).replace("OF_HIGH", of_high)


_DECLARED = """
@config = internal constant <{ i8, i8, [14 x i8], [8 x i16], [16 x i8], [8 x i8], [8 x i8] }>
  <{ i8 1, i8 0, [14 x i8] zeroinitializer,
     [8 x i16] [i16 64, i16 64, i16 64, i16 64, i16 64, i16 64, i16 64, i16 64], [16 x i8] zeroinitializer,
     [8 x i8] [i8 16, i8 16, i8 16, i8 16, i8 16, i8 16, i8 16, i8 16], [8 x i8] zeroinitializer }>, align 64
@zeros = internal constant [COLUMNS x float] zeroinitializer, align 64
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()
declare void @GOMP_barrier()
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilerelease()
declare void @llvm.x86.tilezero(i8)
declare void @llvm.x86.tileloadd64(i8, ptr, i64)
declare void @llvm.x86.tilestored64(i8, ptr, i64)
declare void @llvm.x86.tdpbf16ps(i8, i8, i8)
declare <32 x i16> @llvm.x86.avx512.permvar.hi.512(<32 x i16>, <32 x i16>)
declare <16 x float> @llvm.masked.gather.v16f32.v16p0(<16 x ptr>, i32, <16 x i1>, <16 x float>)
"""


def _multiplied(wide: int) -> str:
    """Tiles 0..3 (0 and 2 if `wide` is 1) += two tiles below each other, `lower` bf16 numbers apart and their rows
    `stride` bytes, times as many strips of packed `b`; `step` numbers on for each DEEP of the inner dimension.
    """
    second = """
  %b.second = getelementptr i32, ptr %b.at, i64 %strip.size
  call void @llvm.x86.tileloadd64(i8 7, ptr %b.second, i64 64)"""
    right = """
  call void @llvm.x86.tdpbf16ps(i8 1, i8 4, i8 7)
  call void @llvm.x86.tdpbf16ps(i8 3, i8 5, i8 7)"""
    return f"""
define internal void @multiplied.{wide}(ptr %a, i64 %stride, i64 %lower, i64 %step, ptr %b, i64 %deep) alwaysinline {{
start:
  %strip.size = mul i64 %deep, {COLUMNS // 2}
  %num.tiles = udiv i64 %deep, DEEP
  br label %tiles
tiles:
  %t = phi i64 [0, %start], [%t.next, %tiles]
  %a.start = mul i64 %t, %step
  %a.first = getelementptr i16, ptr %a, i64 %a.start
  %a.second = getelementptr i16, ptr %a.first, i64 %lower
  %b.start = mul i64 %t, {COLUMNS * DEEP // 2}
  %b.at = getelementptr i32, ptr %b, i64 %b.start
  call void @llvm.x86.tileloadd64(i8 4, ptr %a.first, i64 %stride)
  call void @llvm.x86.tileloadd64(i8 6, ptr %b.at, i64 64)
  call void @llvm.x86.tileloadd64(i8 5, ptr %a.second, i64 %stride){second if wide == 2 else ""}
  call void @llvm.x86.tdpbf16ps(i8 0, i8 4, i8 6)
  call void @llvm.x86.tdpbf16ps(i8 2, i8 5, i8 6){right if wide == 2 else ""}
  %t.next = add i64 %t, 1
  %done = icmp eq i64 %t.next, %num.tiles
  br i1 %done, label %end, label %tiles
end:
  ret void
}}
"""


def _write(transposed: bool) -> str:
    """Tiles 0..3 (0 and 2) to y, rows from `o` and columns from `c` on."""
    if not transposed:
        return "".join(_stored(wide) for wide in (2, 1))
    return _TURNED


def _stored(wide: int) -> str:
    second = """
  %right.0 = getelementptr float, ptr %to.0, i64 COLUMNS
  %right.1 = getelementptr float, ptr %to.1, i64 COLUMNS
  call void @llvm.x86.tilestored64(i8 1, ptr %right.0, i64 %stride)
  call void @llvm.x86.tilestored64(i8 3, ptr %right.1, i64 %stride)"""
    return f"""
define internal void @write.{wide}(ptr %y, i64 %o, i64 %c, i64 %M, i64 %R) alwaysinline {{
  %stride = mul i64 %R, 4
  %start = mul i64 %o, %R
  %place = add i64 %start, %c
  %to.0 = getelementptr float, ptr %y, i64 %place
  %down = mul i64 %R, 16
  %to.1 = getelementptr float, ptr %to.0, i64 %down
  call void @llvm.x86.tilestored64(i8 0, ptr %to.0, i64 %stride)
  call void @llvm.x86.tilestored64(i8 2, ptr %to.1, i64 %stride){second if wide == 2 else ""}
  ret void
}}
"""


_PLACES = ", ".join(f"i64 {16 * row}" for row in range(16))
_TURNED = f"""
define internal void @turned(ptr %tile, ptr %y, i64 %o, i64 %c, i64 %M) {{
start:
  br label %columns
columns:
  %j = phi i64 [0, %start], [%j.next, %columns]
  %from = getelementptr float, ptr %tile, i64 %j
  %each = getelementptr float, ptr %from, <16 x i64> <{_PLACES}>
  %numbers = call <16 x float> @llvm.masked.gather.v16f32.v16p0(
    <16 x ptr> %each, i32 4, <16 x i1> splat (i1 true), <16 x float> poison)
  %column = add i64 %c, %j
  %row = mul i64 %column, %M
  %place = add i64 %row, %o
  %to = getelementptr float, ptr %y, i64 %place
  store <16 x float> %numbers, ptr %to, align 4
  %j.next = add i64 %j, 1
  %done = icmp eq i64 %j.next, COLUMNS
  br i1 %done, label %end, label %columns
end:
  ret void
}}
define internal void @write.1(ptr %y, i64 %o, i64 %c, i64 %M, i64 %R) {{
  %tile = alloca [256 x float], align 64
  %lower = add i64 %o, 16
  call void @llvm.x86.tilestored64(i8 0, ptr %tile, i64 64)
  call void @turned(ptr %tile, ptr %y, i64 %o, i64 %c, i64 %M)
  call void @llvm.x86.tilestored64(i8 2, ptr %tile, i64 64)
  call void @turned(ptr %tile, ptr %y, i64 %lower, i64 %c, i64 %M)
  ret void
}}
define internal void @write.2(ptr %y, i64 %o, i64 %c, i64 %M, i64 %R) {{
  call void @write.1(ptr %y, i64 %o, i64 %c, i64 %M, i64 %R)
  %tile = alloca [256 x float], align 64
  %lower = add i64 %o, 16
  %right = add i64 %c, COLUMNS
  call void @llvm.x86.tilestored64(i8 1, ptr %tile, i64 64)
  call void @turned(ptr %tile, ptr %y, i64 %o, i64 %right, i64 %M)
  call void @llvm.x86.tilestored64(i8 3, ptr %tile, i64 64)
  call void @turned(ptr %tile, ptr %y, i64 %lower, i64 %right, i64 %M)
  ret void
}}
"""

_ENTRY = """
define void @entry(ptr %arguments) {
start:LOADS
  %thread.32 = call i32 @omp_get_thread_num()
  %threads.32 = call i32 @omp_get_num_threads()
  %thread = zext i32 %thread.32 to i64
  %threads = zext i32 %threads.32 to i64
  %next = add i64 %thread, 1
  %scratch.size = mul i64 %K, ROWS
  %scratch = alloca i16, i64 %scratch.size, align 64
  %rank.up = add i64 %rank, 31
  %rank.tiles = udiv i64 %rank.up, DEEP
  %rank.deep = mul i64 %rank.tiles, DEEP
  %rank.pairs = udiv i64 %rank.deep, 2
  %low.size = mul i64 %rank.pairs, %R
  %low.packed = alloca i32, i64 %low.size, align 64
  call void @pack(ptr %low, ptr %low.packed, i64 %rank, i64 %R, i64 %rank.pairs, i64 0, i64 %rank.pairs)
  %pairs = udiv i64 %K, 2
  %pairs.before = mul i64 %thread, %pairs
  %pairs.until = mul i64 %next, %pairs
  %from.pair = udiv i64 %pairs.before, %threads
  %to.pair = udiv i64 %pairs.until, %threads
  call void @pack(ptr %x, ptr %packed, i64 %K, i64 %R, i64 %pairs, i64 %from.pair, i64 %to.pair)
  call void @GOMP_barrier()
  %row.bytes = mul i64 %K, 2
  %lower.start = mul i64 %K, 16
  %high.bytes = mul i64 %rank.deep, 2
  %high.lower = mul i64 %rank.deep, 16
  %groups = udiv i64 %M, ROWS
  %groups.before = mul i64 %thread, %groups
  %groups.until = mul i64 %next, %groups
  %from = udiv i64 %groups.before, %threads
  %to = udiv i64 %groups.until, %threads
  %idle = icmp eq i64 %from, %to
  %no.lora = icmp eq i64 %rank, 0
  br i1 %idle, label %done, label %configured
configured:
  call void @llvm.x86.ldtilecfg(ptr @config)
  br label %rows
rows:
  %g = phi i64 [%from, %configured], [%g.next, %rows.end]
  %o = mul i64 %g, ROWS
  %a = call ptr @expand(ptr %weight, ptr %scales, ptr %code, ptr %scratch, i64 %o, i64 %K)
  %high.start = mul i64 %o, %rank.deep
  %high.rows = getelementptr i16, ptr %high, i64 %high.start
  br label %strips
strips:
  %c = phi i64 [0, %rows], [%c.end, %write]
  %c.end = add i64 %c, STRIP
  %whole = icmp ule i64 %c.end, %R
  br i1 %whole, label %strip, label %rest
strip:
  call void @llvm.x86.tilezero(i8 0)
  call void @llvm.x86.tilezero(i8 1)
  call void @llvm.x86.tilezero(i8 2)
  call void @llvm.x86.tilezero(i8 3)
  %b.start = mul i64 %c, %pairs
  %b = getelementptr i32, ptr %packed, i64 %b.start
  call void @multiplied.2(OF_WEIGHT, ptr %b, i64 %K)
  br i1 %no.lora, label %write, label %lora
lora:
  %low.start = mul i64 %c, %rank.pairs
  %b.low = getelementptr i32, ptr %low.packed, i64 %low.start
  call void @multiplied.2(OF_HIGH, ptr %b.low, i64 %rank.deep)
  br label %write
write:
  call void @write.2(ptr %y, i64 %o, i64 %c, i64 %M, i64 %R)
  br label %strips
rest:
  %none = icmp uge i64 %c, %R
  br i1 %none, label %rows.end, label %half
half:
  call void @llvm.x86.tilezero(i8 0)
  call void @llvm.x86.tilezero(i8 2)
  %b.half.start = mul i64 %c, %pairs
  %b.half = getelementptr i32, ptr %packed, i64 %b.half.start
  call void @multiplied.1(OF_WEIGHT, ptr %b.half, i64 %K)
  br i1 %no.lora, label %write.half, label %lora.half
lora.half:
  %low.half.start = mul i64 %c, %rank.pairs
  %b.low.half = getelementptr i32, ptr %low.packed, i64 %low.half.start
  call void @multiplied.1(OF_HIGH, ptr %b.low.half, i64 %rank.deep)
  br label %write.half
write.half:
  call void @write.1(ptr %y, i64 %o, i64 %c, i64 %M, i64 %R)
  br label %rows.end
rows.end:
  %g.next = add i64 %g, 1
  %rows.done = icmp eq i64 %g.next, %to
  br i1 %rows.done, label %released, label %rows
released:
  call void @llvm.x86.tilerelease()
  br label %done
done:
  ret void
}
"""
