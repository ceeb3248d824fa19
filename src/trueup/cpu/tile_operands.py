"""LLVM's intermediate representation of AMX's operands: x packed into tiles, 4-bit weights decoded into them."""

from __future__ import annotations

ROWS = 32  # of W at a time: two tiles
DEEP = 32  # of the inner dimension in a tile
COLUMNS = 16  # of a tile of x

# pairs from..to of the rows of `x`, (deep, R) in fp32, as (R / COLUMNS, pairs, COLUMNS, 2) in bf16: tiles one after the
# other. What is beyond `deep` is 0
PACK = """
define internal void @pack(ptr noalias %x, ptr noalias %packed, i64 %deep, i64 %R, i64 %pairs, i64 %from, i64 %to) {
start:
  %idle = icmp uge i64 %from, %to
  br i1 %idle, label %done, label %pair
pair:
  %p = phi i64 [%from, %start], [%p.next, %pair.end]
  %k0 = mul i64 %p, 2
  %k1 = add i64 %k0, 1
  %inside.0 = icmp ult i64 %k0, %deep
  %inside.1 = icmp ult i64 %k1, %deep
  %row.0 = mul i64 %k0, %R
  %row.1 = mul i64 %k1, %R
  %to.pair = mul i64 %p, COLUMNS
  br label %columns
columns:
  %c = phi i64 [0, %pair], [%c.next, %columns]
  %place.0 = add i64 %row.0, %c
  %place.1 = add i64 %row.1, %c
  %at.0 = getelementptr float, ptr %x, i64 %place.0
  %at.1 = getelementptr float, ptr %x, i64 %place.1
  %from.0 = select i1 %inside.0, ptr %at.0, ptr @zeros
  %from.1 = select i1 %inside.1, ptr %at.1, ptr @zeros
  %wide.0 = load <COLUMNS x float>, ptr %from.0, align 4
  %wide.1 = load <COLUMNS x float>, ptr %from.1, align 4
  %half.0 = fptrunc <COLUMNS x float> %wide.0 to <COLUMNS x bfloat>
  %half.1 = fptrunc <COLUMNS x float> %wide.1 to <COLUMNS x bfloat>
  %bits.0 = bitcast <COLUMNS x bfloat> %half.0 to <COLUMNS x i16>
  %bits.1 = bitcast <COLUMNS x bfloat> %half.1 to <COLUMNS x i16>
  %low = zext <COLUMNS x i16> %bits.0 to <COLUMNS x i32>
  %up = zext <COLUMNS x i16> %bits.1 to <COLUMNS x i32>
  %high = shl <COLUMNS x i32> %up, splat (i32 16)
  %both = or <COLUMNS x i32> %low, %high
  %to.strip = mul i64 %c, %pairs
  %to.place = add i64 %to.strip, %to.pair
  %to.at = getelementptr i32, ptr %packed, i64 %to.place
  store <COLUMNS x i32> %both, ptr %to.at, align 4
  %c.next = add i64 %c, COLUMNS
  %inside = icmp ult i64 %c.next, %R
  br i1 %inside, label %columns, label %pair.end
pair.end:
  %p.next = add i64 %p, 1
  %more = icmp ult i64 %p.next, %to
  br i1 %more, label %pair, label %done
done:
  ret void
}
"""

# ROWS rows of W from row `o` on: where they are, row after row; or decoded to `scratch`, tile after tile
EXPAND = {
    "bf16": """
define internal ptr @expand(ptr %weight, ptr %scales, ptr %code, ptr %scratch, i64 %o, i64 %K) alwaysinline {
  %start = mul i64 %o, %K
  %rows = getelementptr i16, ptr %weight, i64 %start
  ret ptr %rows
}
""",
    "nf4": """
define internal ptr @expand(ptr noalias %weight, ptr noalias %scales, ptr noalias %code, ptr noalias %scratch,
                            i64 %o, i64 %K) {
start:
  %codes = load <16 x float>, ptr %code, align 4
  %num.blocks = udiv i64 %K, BLOCK
  %blocks.before = mul i64 %o, %num.blocks
  %scales.from = getelementptr float, ptr %scales, i64 %blocks.before
  %bytes.before = mul i64 %blocks.before, 32
  %bytes.from = getelementptr i8, ptr %weight, i64 %bytes.before
  br label %row
row:
  %r = phi i64 [0, %start], [%r.next, %row.end]
  %row.start = mul i64 %r, %num.blocks
  %row.to = mul i64 %r, DEEP
  br label %blocks
blocks:
  %b = phi i64 [0, %row], [%b.next, %blocks]
  %place = add i64 %row.start, %b
  %scale.at = getelementptr float, ptr %scales.from, i64 %place
  %scale = load float, ptr %scale.at, align 4
  %scale.one = insertelement <16 x float> poison, float %scale, i32 0
  %scale.all = shufflevector <16 x float> %scale.one, <16 x float> poison, <16 x i32> zeroinitializer
  %scaled = fmul <16 x float> %codes, %scale.all
  %table.half = fptrunc <16 x float> %scaled to <16 x bfloat>
  %table.bits = bitcast <16 x bfloat> %table.half to <16 x i16>
  %table = shufflevector <16 x i16> %table.bits, <16 x i16> poison, <32 x i32> <TWICE>
  %byte.start = mul i64 %place, 32
  %at.0 = getelementptr i8, ptr %bytes.from, i64 %byte.start
  %at.1 = getelementptr i8, ptr %at.0, i64 16
  %to.start = mul i64 %b, TWO_TILES
  %to.place = add i64 %to.start, %row.to
  %to.0 = getelementptr i16, ptr %scratch, i64 %to.place
  %to.1 = getelementptr i16, ptr %to.0, i64 ONE_TILEHALVES
  %b.next = add i64 %b, 1
  %blocks.done = icmp eq i64 %b.next, %num.blocks
  br i1 %blocks.done, label %row.end, label %blocks
row.end:
  %r.next = add i64 %r, 1
  %rows.done = icmp eq i64 %r.next, ROWS
  br i1 %rows.done, label %end, label %row
end:
  ret ptr %scratch
}
""".replace("TWO_TILES", str(2 * ROWS * DEEP))
    .replace("ONE_TILE", str(ROWS * DEEP))
    .replace("TWICE", ", ".join(f"i32 {place % 16}" for place in range(32)))
    .replace(
        "HALVES",
        "".join(
            f"""
  %bytes.{half} = load <16 x i8>, ptr %at.{half}, align 1
  %wide.{half} = zext <16 x i8> %bytes.{half} to <16 x i32>
  %first.{half} = lshr <16 x i32> %wide.{half}, splat (i32 4)
  %up.{half} = shl <16 x i32> %wide.{half}, splat (i32 16)
  %second.{half} = and <16 x i32> %up.{half}, splat (i32 983040)
  %pairs.{half} = or <16 x i32> %first.{half}, %second.{half}
  %places.{half} = bitcast <16 x i32> %pairs.{half} to <32 x i16>
  %weights.{half} = call <32 x i16> @llvm.x86.avx512.permvar.hi.512(<32 x i16> %table, <32 x i16> %places.{half})
  store <32 x i16> %weights.{half}, ptr %to.{half}, align 2"""
            for half in (0, 1)
        ),
    ),
}
# of those rows: bytes from one to the next, bf16 numbers to the lower tile and to the next DEEP of the inner dimension
LAYOUT = {"bf16": ("%row.bytes", "%lower.start", "DEEP"), "nf4": ("64", str(16 * DEEP), str(ROWS * DEEP))}
