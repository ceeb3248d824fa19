"""LLVM's intermediate representation of attention of one new token per row to the keys and values in its cache.

A thread takes some pairs of a row and a head of keys. The new key is turned and put into the cache, the new value put
beside it; then each query of the pair is turned, and sees the row's keys up to its own.
"""

from __future__ import annotations

import functools
import math
import struct
from typing import Literal

POINTERS = ("heads", "cos", "sin", "keys", "values", "positions", "out")
SIZES = ("columns", "rows", "kv_heads", "group", "width")  # group: queries that read one head of keys
ARGUMENTS = POINTERS + SIZES  # 64 bits each


@functools.cache
def module(head_dim: int, cached: Literal["float", "bfloat"] = "float") -> str:
    """The whole module, for a cache of fp32 or bf16; all else is fp32.

    `entry` takes the address of ARGUMENTS and computes the calling thread's share of the pairs.
    """
    loads = "".join(
        f"""
  %{name}.at = getelementptr i64, ptr %arguments, i64 {place}
  %{name} = load {"ptr" if name in POINTERS else "i64"}, ptr %{name}.at, align 8"""
        for place, name in enumerate(ARGUMENTS)
    )
    named = {"LOADS": loads, "HALF_DIM": head_dim // 2, "HEAD_DIM": head_dim, "SCALE": _fp32(head_dim**-0.5)}
    named |= {"VECTOR": f"<{head_dim} x float>", "PLACES": f"<{head_dim} x i32>"}
    named |= {"CACHED": f"<{head_dim} x {cached}>", "NUMBER": cached}
    text = _DECLARED + _SPLIT + _CACHE[cached] + _TURN + _COPY + _exponentials() + _ENTRY
    for name, value in named.items():
        text = text.replace(name, str(value))
    declared, defined = text.split(_SPLIT)
    return "\n".join(dict.fromkeys(declared.splitlines())) + defined  # a head of 16 declares one function twice


def _fp32(number: float) -> str:
    """As LLVM writes a float: the digits of the double that equals it."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    return "0x" + struct.pack(">d", rounded).hex()


_DECLARED = """
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()
declare float @llvm.maxnum.f32(float, float)
declare <16 x float> @llvm.maxnum.v16f32(<16 x float>, <16 x float>)
declare <16 x float> @llvm.floor.v16f32(<16 x float>)
declare <16 x float> @llvm.fmuladd.v16f32(<16 x float>, <16 x float>, <16 x float>)
declare float @llvm.vector.reduce.fadd.v16f32(float, <16 x float>)
declare float @llvm.vector.reduce.fadd.vHEAD_DIMf32(float, VECTOR)
declare VECTOR @llvm.fmuladd.vHEAD_DIMf32(VECTOR, VECTOR, VECTOR)
"""

# a key or value, from the cache and into it
_CACHE = {
    "float": """
define internal VECTOR @cached(ptr %at) alwaysinline {
  %x = load VECTOR, ptr %at, align 4
  ret VECTOR %x
}
define internal void @cache(VECTOR %x, ptr %at) alwaysinline {
  store VECTOR %x, ptr %at, align 4
  ret void
}
""",
    "bfloat": """
define internal VECTOR @cached(ptr %at) alwaysinline {
  %stored = load CACHED, ptr %at, align 2
  %x = fpext CACHED %stored to VECTOR
  ret VECTOR %x
}
define internal void @cache(VECTOR %x, ptr %at) alwaysinline {
  %rounded = fptrunc VECTOR %x to CACHED
  store CACHED %rounded, ptr %at, align 2
  ret void
}
""",
}

# one head of one row, a column of `from`, turned by its position into contiguous `to` (the first half of sin is
# negative): to[d] = from[d] cos[d] + from[the same place of the other half] sin[d]
_TURN = """
define internal void @turn(ptr noalias %from, ptr noalias %cos, ptr noalias %sin, ptr noalias %to, i64 %columns) {
start:
  br label %loop
loop:
  %d = phi i64 [0, %start], [%d.next, %loop]
  %e = add i64 %d, HALF_DIM
  %d.at = mul i64 %d, %columns
  %e.at = mul i64 %e, %columns
  %first.from = getelementptr float, ptr %from, i64 %d.at
  %second.from = getelementptr float, ptr %from, i64 %e.at
  %first.cos.at = getelementptr float, ptr %cos, i64 %d.at
  %second.cos.at = getelementptr float, ptr %cos, i64 %e.at
  %first.sin.at = getelementptr float, ptr %sin, i64 %d.at
  %second.sin.at = getelementptr float, ptr %sin, i64 %e.at
  %first = load float, ptr %first.from, align 4
  %second = load float, ptr %second.from, align 4
  %first.cos = load float, ptr %first.cos.at, align 4
  %second.cos = load float, ptr %second.cos.at, align 4
  %first.sin = load float, ptr %first.sin.at, align 4
  %second.sin = load float, ptr %second.sin.at, align 4
  %first.straight = fmul float %first, %first.cos
  %first.across = fmul float %second, %first.sin
  %first.turned = fadd float %first.straight, %first.across
  %second.straight = fmul float %second, %second.cos
  %second.across = fmul float %first, %second.sin
  %second.turned = fadd float %second.straight, %second.across
  %first.to = getelementptr float, ptr %to, i64 %d
  %second.to = getelementptr float, ptr %to, i64 %e
  store float %first.turned, ptr %first.to, align 4
  store float %second.turned, ptr %second.to, align 4
  %d.next = add i64 %d, 1
  %done = icmp eq i64 %d.next, HALF_DIM
  br i1 %done, label %end, label %loop
end:
  ret void
}
"""

# HEAD_DIM numbers, those of `from` and of `to` so many apart
_COPY = """
define internal void @copy(ptr noalias %from, i64 %from.step, ptr noalias %to, i64 %to.step) {
start:
  br label %loop
loop:
  %d = phi i64 [0, %start], [%d.next, %loop]
  %from.place = mul i64 %d, %from.step
  %to.place = mul i64 %d, %to.step
  %from.at = getelementptr float, ptr %from, i64 %from.place
  %to.at = getelementptr float, ptr %to, i64 %to.place
  %number = load float, ptr %from.at, align 4
  store float %number, ptr %to.at, align 4
  %d.next = add i64 %d, 1
  %done = icmp eq i64 %d.next, HEAD_DIM
  br i1 %done, label %end, label %loop
end:
  ret void
}
"""

# exp(score - max) of `count` scores in place, in sixteens, and their sum. What stands after them up to a sixteen must
# be -inf. By powers of 2 and a polynomial, as in Cephes (Moshier): the same to 2e-7
_EXPONENTIALS = """
define internal float @exponentials(ptr noalias %scores, i64 %count, float %max) {
start:
  %max.one = insertelement <16 x float> poison, float %max, i32 0
  %max.all = shufflevector <16 x float> %max.one, <16 x float> poison, <16 x i32> zeroinitializer
  br label %loop
loop:
  %t = phi i64 [0, %start], [%t.next, %loop]
  %sum = phi <16 x float> [zeroinitializer, %start], [%sum.next, %loop]
  %at = getelementptr float, ptr %scores, i64 %t
  %score = load <16 x float>, ptr %at, align 4
  %below = fsub <16 x float> %score, %max.all
  %x = call <16 x float> @llvm.maxnum.v16f32(<16 x float> %below, <16 x float> splat (float LEAST))
  %scaled = call <16 x float> @llvm.fmuladd.v16f32(
    <16 x float> %x, <16 x float> splat (float LOG2_E), <16 x float> splat (float 0.5))
  %n = call <16 x float> @llvm.floor.v16f32(<16 x float> %scaled)
  %r.0 = call <16 x float> @llvm.fmuladd.v16f32(
    <16 x float> %n, <16 x float> splat (float MINUS_LN2_HIGH), <16 x float> %x)
  %r = call <16 x float> @llvm.fmuladd.v16f32(
    <16 x float> %n, <16 x float> splat (float MINUS_LN2_LOW), <16 x float> %r.0)POLYNOMIAL
  %square = fmul <16 x float> %r, %r
  %one.and = fadd <16 x float> %r, splat (float 1.0)
  %power = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %p.5, <16 x float> %square, <16 x float> %one.and)
  %n.whole = fptosi <16 x float> %n to <16 x i32>
  %biased = add <16 x i32> %n.whole, splat (i32 127)
  %exponent = shl <16 x i32> %biased, splat (i32 23)
  %two.to.n = bitcast <16 x i32> %exponent to <16 x float>
  %result = fmul <16 x float> %power, %two.to.n
  store <16 x float> %result, ptr %at, align 4
  %sum.next = fadd <16 x float> %sum, %result
  %t.next = add i64 %t, 16
  %more = icmp ult i64 %t.next, %count
  br i1 %more, label %loop, label %done
done:
  %total = call reassoc float @llvm.vector.reduce.fadd.v16f32(float 0.0, <16 x float> %sum.next)
  ret float %total
}
"""
_SPLIT = "; definitions"
_POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def _exponentials() -> str:
    steps = f"\n  %p.0 = fadd <16 x float> zeroinitializer, splat (float {_fp32(_POLYNOMIAL[0])})"
    for place, coefficient in enumerate(_POLYNOMIAL[1:], 1):
        steps += f"""
  %p.{place} = call <16 x float> @llvm.fmuladd.v16f32(
    <16 x float> %p.{place - 1}, <16 x float> %r, <16 x float> splat (float {_fp32(coefficient)}))"""
    # exp of -87 is 1e-38, the least that is no denormal; ln 2 in two parts, the first of few digits
    named = {
        "LEAST": -87.0,
        "LOG2_E": math.log2(math.e),
        "MINUS_LN2_HIGH": -0.693359375,
        "MINUS_LN2_LOW": 2.12194440e-4,
    }
    text = _EXPONENTIALS.replace("POLYNOMIAL", steps)
    for name, number in named.items():
        text = text.replace(name, _fp32(number))
    return text


_ENTRY = """
define void @entry(ptr %arguments) {
start:LOADS
  %one = alloca [HEAD_DIM x float], align 64
  %room = add i64 %width, 16
  %scores = alloca float, i64 %room, align 64
  %thread.32 = call i32 @omp_get_thread_num()
  %threads.32 = call i32 @omp_get_num_threads()
  %thread = zext i32 %thread.32 to i64
  %threads = zext i32 %threads.32 to i64
  %pairs = mul i64 %rows, %kv_heads
  %next = add i64 %thread, 1
  %pairs.before = mul i64 %thread, %pairs
  %pairs.until = mul i64 %next, %pairs
  %from = udiv i64 %pairs.before, %threads
  %to = udiv i64 %pairs.until, %threads
  %idle = icmp eq i64 %from, %to
  %head.size = mul i64 %columns, HEAD_DIM
  %num.queries = mul i64 %kv_heads, %group
  %first.value = add i64 %num.queries, %kv_heads
  br i1 %idle, label %done, label %pair

pair:
  %u = phi i64 [%from, %start], [%u.next, %pair.end]
  %row = udiv i64 %u, %kv_heads
  %kv = urem i64 %u, %kv_heads
  %position.at = getelementptr i64, ptr %positions, i64 %row
  %position = load i64, ptr %position.at, align 8
  %num.seen = add i64 %position, 1
  %cos.row = getelementptr float, ptr %cos, i64 %row
  %sin.row = getelementptr float, ptr %sin, i64 %row
  %heads.row = getelementptr float, ptr %heads, i64 %row
  %out.row = getelementptr float, ptr %out, i64 %row
  %cell = mul i64 %u, %width
  %cache.start = mul i64 %cell, HEAD_DIM
  %keys.row = getelementptr NUMBER, ptr %keys, i64 %cache.start
  %values.row = getelementptr NUMBER, ptr %values, i64 %cache.start
  %own = mul i64 %position, HEAD_DIM
  %own.key = getelementptr NUMBER, ptr %keys.row, i64 %own
  %own.value = getelementptr NUMBER, ptr %values.row, i64 %own
  %key.head = add i64 %num.queries, %kv
  %key.place = mul i64 %key.head, %head.size
  %key.from = getelementptr float, ptr %heads.row, i64 %key.place
  %value.head = add i64 %first.value, %kv
  %value.place = mul i64 %value.head, %head.size
  %value.from = getelementptr float, ptr %heads.row, i64 %value.place
  call void @turn(ptr %key.from, ptr %cos.row, ptr %sin.row, ptr %one, i64 %columns)
  %new.key = load VECTOR, ptr %one, align 64
  call void @cache(VECTOR %new.key, ptr %own.key)
  call void @copy(ptr %value.from, i64 %columns, ptr %one, i64 1)
  %new.value = load VECTOR, ptr %one, align 64
  call void @cache(VECTOR %new.value, ptr %own.value)
  %first.query = mul i64 %kv, %group
  br label %query

query:
  %g = phi i64 [0, %pair], [%g.next, %query.end]
  %head = add i64 %first.query, %g
  %query.place = mul i64 %head, %head.size
  %query.from = getelementptr float, ptr %heads.row, i64 %query.place
  %query.to = getelementptr float, ptr %out.row, i64 %query.place
  call void @turn(ptr %query.from, ptr %cos.row, ptr %sin.row, ptr %one, i64 %columns)
  %q = load VECTOR, ptr %one, align 64
  br label %scoring

scoring:
  %t = phi i64 [0, %query], [%t.next, %scoring]
  %max = phi float [0xFFF0000000000000, %query], [%max.next, %scoring]
  %key.start = mul i64 %t, HEAD_DIM
  %key.at = getelementptr NUMBER, ptr %keys.row, i64 %key.start
  %key = call VECTOR @cached(ptr %key.at)
  %products = fmul VECTOR %q, %key
  %inner = call reassoc float @llvm.vector.reduce.fadd.vHEAD_DIMf32(float 0.0, VECTOR %products)
  %score = fmul float %inner, SCALE
  %score.to = getelementptr float, ptr %scores, i64 %t
  store float %score, ptr %score.to, align 4
  %max.next = call float @llvm.maxnum.f32(float %max, float %score)
  %t.next = add i64 %t, 1
  %scored = icmp eq i64 %t.next, %num.seen
  br i1 %scored, label %exponents, label %scoring

exponents:
  %after = getelementptr float, ptr %scores, i64 %num.seen
  store <16 x float> splat (float 0xFFF0000000000000), ptr %after, align 4
  %sum.all = call float @exponentials(ptr %scores, i64 %num.seen, float %max.next)
  br label %weighing

weighing:
  %s = phi i64 [0, %exponents], [%s.next, %weighing]
  %mean = phi VECTOR [zeroinitializer, %exponents], [%mean.next, %weighing]
  %weight.at = getelementptr float, ptr %scores, i64 %s
  %weight = load float, ptr %weight.at, align 4
  %value.start = mul i64 %s, HEAD_DIM
  %value.at = getelementptr NUMBER, ptr %values.row, i64 %value.start
  %value = call VECTOR @cached(ptr %value.at)
  %weight.one = insertelement VECTOR poison, float %weight, i32 0
  %weight.all = shufflevector VECTOR %weight.one, VECTOR poison, PLACES zeroinitializer
  %mean.next = call VECTOR @llvm.fmuladd.vHEAD_DIMf32(VECTOR %weight.all, VECTOR %value, VECTOR %mean)
  %s.next = add i64 %s, 1
  %weighed = icmp eq i64 %s.next, %num.seen
  br i1 %weighed, label %query.end, label %weighing

query.end:
  %share = fdiv float 1.0, %sum.all
  %share.one = insertelement VECTOR poison, float %share, i32 0
  %share.all = shufflevector VECTOR %share.one, VECTOR poison, PLACES zeroinitializer
  %seen = fmul VECTOR %mean.next, %share.all
  store VECTOR %seen, ptr %one, align 64
  call void @copy(ptr %one, i64 1, ptr %query.to, i64 %columns)
  %g.next = add i64 %g, 1
  %queries.done = icmp eq i64 %g.next, %group
  br i1 %queries.done, label %pair.end, label %query

pair.end:
  %u.next = add i64 %u, 1
  %pairs.done = icmp eq i64 %u.next, %to
  br i1 %pairs.done, label %done, label %pair

done:
  ret void
}
"""
