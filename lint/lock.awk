# Makes requirements.lock of what uv has locked: without torch and what only its CUDA wheels need.
BEGIN {
    print "# Every package of the extra dev, with the hashes of its files. `make lock` writes this file; do not edit it."
    print "# torch is not in it, nor are the CUDA libraries that its wheels for GPUs need: which wheel fits depends on the"
    print "# machine, and a local build has hashes of its own. Install it first, in the version that constraints.txt names:"
    print "#     pip install -c constraints.txt torch"
    print "#     pip install --require-hashes --no-deps -r requirements.lock"
    print "#     pip install --no-deps --no-build-isolation -e . && pip check"
}
/^[^ ]/ { keep = !/^(torch|triton|nvidia-[^=]*|cuda-[^=]*)==/ }
keep
