"""LLVM's intermediate representation of y = W x + high low, W 4-bit or bf16, everything else fp32 and row-major.

A tile of the result, a few rows by 8, 16 or 32 columns, stays in vector registers while the inner dimension passes: a
weight is read, decoded to fp32, and multiplied into every column of its row. In these texts `#` is replaced by each row
of a tile; LLVM maps the vector types onto whatever registers the processor has.
"""

from __future__ import annotations

import functools

# 64 bits each; `packed`: room for x in bf16, of which tile_source.py alone makes use
ARGUMENTS = ("weight", "scales", "code", "x", "y", "high", "low", "packed", "K", "R", "M", "rank")
NUM_POINTERS = 8
BLOCK = 64  # weights that share one scale
COLUMNS = 8  # the fewest columns of a tile
ROWS = {32: 2, 16: 4, 8: 4}  # columns of a tile: its rows, so that sums fill sixteen vector registers and no more
QUAD = 4  # threads share out rows in fours

# a block's weights or its code, in fp32, where the loop over its pairs finds them
PROLOGUE = {
    "nf4": """
  %scale.at.# = getelementptr float, ptr %scales.#, i64 %b
  %scale.# = load float, ptr %scale.at.#, align 4
  %scale.one.# = insertelement <16 x float> poison, float %scale.#, i32 0
  %scale.all.# = shufflevector <16 x float> %scale.one.#, <16 x float> poison, <16 x i32> zeroinitializer
  %scaled.# = fmul <16 x float> %codes, %scale.all.#
  store <16 x float> %scaled.#, ptr %table.#, align 64""",
    "bf16": """
  %block.# = getelementptr i16, ptr %row.#, i64 %b.start
  %halves.# = load <64 x i16>, ptr %block.#, align 2
  %wide.# = zext <64 x i16> %halves.# to <64 x i32>
  %shifted.# = shl <64 x i32> %wide.#, splat (i32 16)
  store <64 x i32> %shifted.#, ptr %table.#, align 64""",
}
# where in the table the two weights of a pair are
PAIR = {
    "nf4": """
  %byte.at.# = getelementptr i8, ptr %row.#, i64 %pair
  %byte.# = load i8, ptr %byte.at.#, align 1
  %bits.# = zext i8 %byte.# to i64
  %first.# = lshr i64 %bits.#, 4
  %second.# = and i64 %bits.#, 15""",
    "bf16": """
  %first.# = shl i64 %j, 1
  %second.# = or disjoint i64 %first.#, 1""",
}
ROW = {
    "nf4": """
  %row.start.# = mul i64 %o.#, %half.K
  %row.# = getelementptr i8, ptr %weight, i64 %row.start.#
  %scales.start.# = mul i64 %o.#, %num.blocks
  %scales.# = getelementptr float, ptr %scales, i64 %scales.start.#""",
    "bf16": """
  %row.start.# = mul i64 %o.#, %K
  %row.# = getelementptr i16, ptr %weight, i64 %row.start.#""",
}
TABLE = {"nf4": 16, "bf16": BLOCK}  # floats


@functools.cache
def module(kind: str, transposed: bool = False) -> str:
    """The whole module, of y or its transpose.

    `entry` takes the address of ARGUMENTS and computes the calling thread's share of the rows.
    """
    vectors = [f"<{columns} x float>" for columns in ROWS]
    products = [
        f"declare {vector} @llvm.fmuladd.v{columns}f32({vector}, {vector}, {vector})"
        for vector, columns in zip(vectors, ROWS, strict=True)
    ]
    threads = ["declare i32 @omp_get_thread_num()", "declare i32 @omp_get_num_threads()"]
    return "\n".join(
        [*threads, *products, *(_tiles(kind, columns, transposed) for columns in ROWS), _entry(transposed)]
    )


def _parameters(prefix: str = "", own: tuple[str, ...] = (), ending: str = "") -> str:
    types = (f"ptr {prefix}" if i < NUM_POINTERS else "i64 " for i in range(len(ARGUMENTS)))
    return ", ".join(f"{kind}%{n}{ending if n in own else ''}" for kind, n in zip(types, ARGUMENTS, strict=True))


def _entry(transposed: bool) -> str:
    text = ["define void @entry(ptr %arguments) {\nstart:"]
    for place, name in enumerate(ARGUMENTS):
        kind = "ptr" if place < NUM_POINTERS else "i64"
        text.append(f"""  %{name}.at = getelementptr i64, ptr %arguments, i64 {place}
  %{name} = load {kind}, ptr %{name}.at, align 8""")
    text.append(f"""  %thread.32 = call i32 @omp_get_thread_num()
  %threads.32 = call i32 @omp_get_num_threads()
  %thread = zext i32 %thread.32 to i64
  %threads = zext i32 %threads.32 to i64
  %quads = udiv i64 %M, {QUAD}
  %next = add i64 %thread, 1
  %quads.before = mul i64 %thread, %quads
  %quads.until = mul i64 %next, %quads
  %from.quad = udiv i64 %quads.before, %threads
  %to.quad = udiv i64 %quads.until, %threads
  %from = mul i64 %from.quad, {QUAD}
  %to = mul i64 %to.quad, {QUAD}
  %idle = icmp eq i64 %from, %to
  br i1 %idle, label %done, label %strips.32""")
    before = "[0, %start]"
    for columns, following in zip(ROWS, [*list(ROWS)[1:], None], strict=True):
        after = "done" if following is None else f"strips.{following}"
        start = f"mul i64 %c.{columns}, {'%M' if transposed else '1'}"
        own = _parameters(own=("x", "y", "low"), ending=f".{columns}")
        text.append(f"""strips.{columns}:
  %c.{columns} = phi i64 {before}, [%end.{columns}, %strip.{columns}]
  %end.{columns} = add i64 %c.{columns}, {columns}
  %inside.{columns} = icmp ule i64 %end.{columns}, %R
  br i1 %inside.{columns}, label %strip.{columns}, label %{after}
strip.{columns}:
  %x.{columns} = getelementptr float, ptr %x, i64 %c.{columns}
  %y.start.{columns} = {start}
  %y.{columns} = getelementptr float, ptr %y, i64 %y.start.{columns}
  %low.{columns} = getelementptr float, ptr %low, i64 %c.{columns}
  call void @tiles.{columns}({own}, i64 %from, i64 %to)
  br label %strips.{columns}""")
        before = f"[%c.{columns}, %strips.{columns}]"
    return "\n".join([*text, "done:\n  ret void\n}"])


def _tiles(kind: str, columns: int, transposed: bool) -> str:
    """Rows from..to of one strip of columns."""
    num_rows, vector = ROWS[columns], f"<{columns} x float>"

    def each(text: str) -> str:
        return "".join(text.replace("#", str(row)) for row in range(num_rows))

    def multiplied(weight: str, x: str, total: str, to: str) -> str:
        return f"""
  %{to}.one = insertelement {vector} poison, float %{weight}, i32 0
  %{to}.all = shufflevector {vector} %{to}.one, {vector} poison, <{columns} x i32> zeroinitializer
  %{to} = call {vector} @llvm.fmuladd.v{columns}f32({vector} %{to}.all, {vector} %{x}, {vector} %{total})"""

    def read(name: str, table: str, place: str) -> str:
        return f"""
  %{name}.at = getelementptr float, ptr %{table}, i64 %{place}
  %{name} = load float, ptr %{name}.at, align 4"""

    pair = PAIR[kind] + read("w0.#", "table.#", "first.#") + read("w1.#", "table.#", "second.#")
    pair += multiplied("w0.#", "x0", "sum.#", "sum.half.#") + multiplied("w1.#", "x1", "sum.half.#", "sum.next.#")
    lora = read("high.#", "high.row.#", "k.lora") + multiplied("high.#", "x.lora", "lora.#", "lora.next.#")
    codes = "%codes = load <16 x float>, ptr %code, align 4" if kind == "nf4" else ""
    tables = each(f"""
  %table.# = alloca [{TABLE[kind]} x float], align 64""")
    others = each("""
  %o.# = add i64 %o, #""")
    wholes = each(f"""
  %whole.# = phi {vector} [zeroinitializer, %rows], [%sum.next.#, %blocks.end]""")
    sums = each(f"""
  %sum.# = phi {vector} [%whole.#, %blocks], [%sum.next.#, %pairs]""")
    highs = each("""
  %high.start.# = mul i64 %o.#, %rank
  %high.row.# = getelementptr float, ptr %high, i64 %high.start.#""")
    loras = each(f"""
  %lora.# = phi {vector} [%sum.next.#, %frozen.end], [%lora.next.#, %loras]""")
    results = each(f"""
  %result.# = phi {vector} [%sum.next.#, %frozen.end], [%lora.next.#, %loras]""")
    written = each(f"""
  %y.start.# = mul i64 %o.#, %R
  %y.at.# = getelementptr float, ptr %y, i64 %y.start.#
  store {vector} %result.#, ptr %y.at.#, align 4""")
    if transposed:
        each_column = """
  %y.row.#.COLUMN = mul i64 %M, COLUMN
  %y.start.#.COLUMN = add i64 %y.row.#.COLUMN, %o.#
  %y.at.#.COLUMN = getelementptr float, ptr %y, i64 %y.start.#.COLUMN
  %one.#.COLUMN = extractelement VECTOR %result.#, i32 COLUMN
  store float %one.#.COLUMN, ptr %y.at.#.COLUMN, align 4""".replace("VECTOR", vector)
        written = "".join(each(each_column.replace("COLUMN", str(column))) for column in range(columns))
    return f"""define internal void @tiles.{columns}({_parameters("noalias ")}, i64 %from, i64 %to) {{
start:{tables}
  {codes}
  %half.K = udiv i64 %K, 2
  %num.blocks = udiv i64 %K, {BLOCK}
  %no.lora = icmp eq i64 %rank, 0
  br label %rows
rows:
  %o = phi i64 [%from, %start], [%o.next, %write]{others}{each(ROW[kind])}
  br label %blocks
blocks:
  %b = phi i64 [0, %rows], [%b.next, %blocks.end]{wholes}
  %b.start = mul i64 %b, {BLOCK}
  %b.pairs = mul i64 %b, {BLOCK // 2}{each(PROLOGUE[kind])}
  br label %pairs
pairs:
  %j = phi i64 [0, %blocks], [%j.next, %pairs]{sums}
  %pair = add i64 %b.pairs, %j
  %k = mul i64 %pair, 2
  %x.start = mul i64 %k, %R
  %x0.at = getelementptr float, ptr %x, i64 %x.start
  %x1.at = getelementptr float, ptr %x0.at, i64 %R
  %x0 = load {vector}, ptr %x0.at, align 4
  %x1 = load {vector}, ptr %x1.at, align 4{each(pair)}
  %j.next = add i64 %j, 1
  %pairs.done = icmp eq i64 %j.next, {BLOCK // 2}
  br i1 %pairs.done, label %blocks.end, label %pairs
blocks.end:
  %b.next = add i64 %b, 1
  %blocks.done = icmp eq i64 %b.next, %num.blocks
  br i1 %blocks.done, label %frozen.end, label %blocks
frozen.end:{highs}
  br i1 %no.lora, label %write, label %loras
loras:
  %k.lora = phi i64 [0, %frozen.end], [%k.next, %loras]{loras}
  %low.start = mul i64 %k.lora, %R
  %low.at = getelementptr float, ptr %low, i64 %low.start
  %x.lora = load {vector}, ptr %low.at, align 4{each(lora)}
  %k.next = add i64 %k.lora, 1
  %loras.done = icmp eq i64 %k.next, %rank
  br i1 %loras.done, label %write, label %loras
write:{results}{written}
  %o.next = add i64 %o, {num_rows}
  %rows.done = icmp eq i64 %o.next, %to
  br i1 %rows.done, label %done, label %rows
done:
  ret void
}}"""
