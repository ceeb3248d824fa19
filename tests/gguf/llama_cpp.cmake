# Leaves out llama.cpp's `common` library, which its Python package builds and never loads: half of the compiling.
set(LLAMA_BUILD_COMMON OFF)
