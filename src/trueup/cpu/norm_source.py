"""LLVM's intermediate representation of x += y and RMSNorm of each column of x, (n, columns) row-major in fp32."""

from __future__ import annotations

ARGUMENTS = ("x", "y", "weight", "out", "n", "columns", "epsilon")  # 64 bits each; epsilon as the bits of a double

MODULE = """
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()
declare <8 x float> @llvm.sqrt.v8f32(<8 x float>)

define void @entry(ptr %arguments) {
start:
  %x = load ptr, ptr %arguments, align 8
  %y.at = getelementptr i64, ptr %arguments, i64 1
  %weight.at = getelementptr i64, ptr %arguments, i64 2
  %out.at = getelementptr i64, ptr %arguments, i64 3
  %n.at = getelementptr i64, ptr %arguments, i64 4
  %columns.at = getelementptr i64, ptr %arguments, i64 5
  %epsilon.at = getelementptr i64, ptr %arguments, i64 6
  %y = load ptr, ptr %y.at, align 8
  %weight = load ptr, ptr %weight.at, align 8
  %out = load ptr, ptr %out.at, align 8
  %n = load i64, ptr %n.at, align 8
  %columns = load i64, ptr %columns.at, align 8
  %epsilon.wide = load double, ptr %epsilon.at, align 8
  %epsilon.one = fptrunc double %epsilon.wide to float
  %epsilon.0 = insertelement <8 x float> poison, float %epsilon.one, i32 0
  %epsilon = shufflevector <8 x float> %epsilon.0, <8 x float> poison, <8 x i32> zeroinitializer
  %n.one = uitofp i64 %n to float
  %n.0 = insertelement <8 x float> poison, float %n.one, i32 0
  %n.all = shufflevector <8 x float> %n.0, <8 x float> poison, <8 x i32> zeroinitializer
  %thread.32 = call i32 @omp_get_thread_num()
  %threads.32 = call i32 @omp_get_num_threads()
  %thread = zext i32 %thread.32 to i64
  %threads = zext i32 %threads.32 to i64
  %num.strips = udiv i64 %columns, 8
  %next = add i64 %thread, 1
  %strips.before = mul i64 %thread, %num.strips
  %strips.until = mul i64 %next, %num.strips
  %from.strip = udiv i64 %strips.before, %threads
  %to.strip = udiv i64 %strips.until, %threads
  %from = mul i64 %from.strip, 8
  %to = mul i64 %to.strip, 8
  br label %strips

strips:
  %c = phi i64 [%from, %start], [%c.next, %strip.end]
  %inside = icmp ult i64 %c, %to
  br i1 %inside, label %adding, label %done

adding:
  %i = phi i64 [0, %strips], [%i.next, %adding]
  %sum = phi <8 x float> [zeroinitializer, %strips], [%sum.next, %adding]
  %row = mul i64 %i, %columns
  %place = add i64 %row, %c
  %x.place = getelementptr float, ptr %x, i64 %place
  %y.place = getelementptr float, ptr %y, i64 %place
  %before = load <8 x float>, ptr %x.place, align 4
  %more = load <8 x float>, ptr %y.place, align 4
  %added = fadd <8 x float> %before, %more
  store <8 x float> %added, ptr %x.place, align 4
  %square = fmul <8 x float> %added, %added
  %sum.next = fadd <8 x float> %sum, %square
  %i.next = add i64 %i, 1
  %added.all = icmp eq i64 %i.next, %n
  br i1 %added.all, label %scaling.start, label %adding

scaling.start:
  %mean = fdiv <8 x float> %sum.next, %n.all
  %shifted = fadd <8 x float> %mean, %epsilon
  %root = call <8 x float> @llvm.sqrt.v8f32(<8 x float> %shifted)
  %scale = fdiv <8 x float> splat (float 1.0), %root
  br label %scaling

scaling:
  %j = phi i64 [0, %scaling.start], [%j.next, %scaling]
  %row.again = mul i64 %j, %columns
  %place.again = add i64 %row.again, %c
  %x.again = getelementptr float, ptr %x, i64 %place.again
  %out.place = getelementptr float, ptr %out, i64 %place.again
  %weight.place = getelementptr float, ptr %weight, i64 %j
  %value = load <8 x float>, ptr %x.again, align 4
  %w = load float, ptr %weight.place, align 4
  %w.0 = insertelement <8 x float> poison, float %w, i32 0
  %w.all = shufflevector <8 x float> %w.0, <8 x float> poison, <8 x i32> zeroinitializer
  %scaled = fmul <8 x float> %value, %scale
  %normed = fmul <8 x float> %scaled, %w.all
  store <8 x float> %normed, ptr %out.place, align 4
  %j.next = add i64 %j, 1
  %scaled.all = icmp eq i64 %j.next, %n
  br i1 %scaled.all, label %strip.end, label %scaling

strip.end:
  %c.next = add i64 %c, 8
  br label %strips

done:
  ret void
}
"""
