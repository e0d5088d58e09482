#!/usr/bin/env bash
# Run on an NVIDIA GPU all checks that need one, the most important first, in a given time:
#
#     make build                                   (with nvcc and a CUDA build of torch; see README.md)
#     bash tools/gpu/run.sh                        ten minutes; results in output/gpu
#     BUDGET=400 bash tools/gpu/run.sh             ends after 400 seconds
#     STAGES="load smoke speed" bash tools/gpu/run.sh
#     python -m tools.gpu.report output/gpu docs/results/gpu/NAME.md      one page of the results
#
# Environment: OUT (results folder), PY (python with torch), BUDGET [s], STAGES, WHEELS (a folder of wheels to install,
# for a machine without a network). GPU_DEVICE=cpu GPU_TOY=1 tests the script without a GPU.
#
# Every stage has a time limit and writes to its file at once. The next stage runs even if one fails; only a failed
# `load` ends the run. Files: summary.txt smoke.txt tests.txt sanitizer.txt speed.txt train.txt ncu.txt and
# figures.jsonl, which the report reads. Planned seconds (limit): load 10 (60), smoke 30 (60), tests beside sanitizer 110
# (170), oom 15 (40), speed 45 (80), profile 40 (75), train 75 (150), ncu 50 (80), million 60 (80), scaling 30 (45).
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
export OUT=${OUT:-$PWD/output/gpu} GPU_DEVICE=${GPU_DEVICE:-cuda} GPU_TOY=${GPU_TOY:-}
BUDGET=${BUDGET:-560}
STAGES=${STAGES:-load smoke tests oom speed profile train ncu million scaling}
PY=${PY:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
ITERATIONS=5000 SPLATS=50000
[ "$GPU_TOY" = 1 ] && ITERATIONS=20 SPLATS=500
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$PWD:$scratch/site${PYTHONPATH:+:$PYTHONPATH}"
newest_ncu=$(ls -d /opt/nvidia/nsight-compute/* 2>/dev/null | tail -n 1)
export PATH="$PATH:/usr/local/cuda/bin${newest_ncu:+:$newest_ncu}"
SUMMARY=$OUT/summary.txt
: >"$SUMMARY"
rm -f "$OUT"/{smoke,tests,sanitizer,speed,train,ncu}.txt "$OUT/figures.jsonl"

left() { echo $((BUDGET - SECONDS)); }
report() { echo "[${SECONDS}s] $*" | tee -a "$SUMMARY"; }
wanted() { # NAME SECONDS: succeed if the stage is asked for and that much time is left
  case " $STAGES " in *" $1 "*) ;; *) return 1 ;; esac
  [ "$(left)" -ge "$2" ] || { report "$1: SKIPPED, $(left) s left, $2 needed"; return 1; }
}
stage() { # NAME LIMIT FILE COMMAND...
  local name=$1 limit=$2 file=$3 start=$SECONDS code
  shift 3
  [ "$(left)" -lt "$limit" ] && limit=$(left)
  printf '##### %s\n' "$name" >>"$OUT/$file"
  timeout -k 5 "$limit" "$@" >>"$OUT/$file" 2>&1
  code=$?
  report "$name: exit code $code, $((SECONDS - start)) s$([ $code = 124 ] && echo " (the limit of $limit s)")"
  return $code
}
has() { "$PY" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)"; }

machine() {
  date -u
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm --format=csv,noheader
  echo "$(uname -sr), $(nproc) processors, $("$PY" --version)"
  git log -1 --format='commit %h, %s' 2>/dev/null
  for program in nvcc ncu compute-sanitizer; do
    command -v $program >/dev/null || echo "missing: $program"
  done
  for module in plyfile tqdm click imageio PIL pytest xdist pytest_timeout; do has $module || echo "missing: $module"; done
}

run_load() {
  [ -d "${WHEELS:-}" ] && "$PY" -m pip install -q --no-index --no-deps --target "$scratch/site" "$WHEELS"/*.whl
  machine 2>&1 | tee -a "$SUMMARY"
  stage load 60 smoke.txt "$PY" -m tools.gpu.load && return
  tail -n 5 "$OUT/smoke.txt" | tee -a "$SUMMARY"
  report "building the extension here"
  stage build 150 smoke.txt env SPLATRENDER_CUDA=1 SPLATRENDER_CUDA_ARCHS="${ARCHS:-90}" "$PY" setup.py build_ext --inplace
  stage load-again 60 smoke.txt "$PY" -m tools.gpu.load
}

run_smoke() {
  stage smoke 60 smoke.txt "$PY" -m tools.gpu.smoke
  grep -E 'WRONG|^smoke' "$OUT/smoke.txt" | tail -n 30 | tee -a "$SUMMARY"
}

# Each tensor gets its own allocation: in torch's pool memcheck would miss a write beyond the end.
run_sanitizer() {
  command -v compute-sanitizer >/dev/null || { report "sanitizer: SKIPPED, no compute-sanitizer"; return; }
  local tool
  for tool in memcheck racecheck initcheck synccheck; do
    [ "$(left)" -ge 60 ] || { report "sanitizer $tool: SKIPPED, $(left) s left"; continue; }
    stage "sanitizer $tool" 75 sanitizer.txt \
      env GPU_TOY=1 OUT="$scratch" $([ $tool = memcheck ] && echo PYTORCH_NO_CUDA_MEMORY_CACHING=1) \
      compute-sanitizer --tool $tool --print-limit 20 --error-exitcode 9 "$PY" -m tools.gpu.smoke
  done
  grep -E 'SUMMARY' "$OUT/sanitizer.txt" | tee -a "$SUMMARY"
}

OOM=tests/cuda/test_cuda.py::test_out_of_memory_is_reported_as_torch_reports_it
run_tests() {
  local options=(-p no:cacheprovider -q --tb=short --durations=12 --maxfail=60 --deselect "$OOM")
  has xdist && options+=(-n 7)
  has pytest_timeout && options+=(--timeout=90)
  run_sanitizer &
  stage tests 170 tests.txt env OMP_NUM_THREADS=2 "$PY" -m pytest -m cuda "${options[@]}"
  grep -E '^(FAILED|ERROR)|passed|failed|skipped' "$OUT/tests.txt" | tail -n 40 | tee -a "$SUMMARY"
  wait
}

run_speed() {
  local device=$GPU_DEVICE
  [ "$device" = cuda ] || device=emulated
  stage speed 80 speed.txt "$PY" -m benchmarks.render.raster --device $device --repeats $([ "$GPU_TOY" = 1 ] && echo 1 || echo 15) \
    --json "$scratch/speed.json" $([ "$GPU_TOY" = 1 ] && echo --toy --workloads W0b --steps 1)
  "$PY" -m tools.gpu.record speed "$scratch/speed.json"
}

run_train() {
  local strategy
  for strategy in wfr mcmc adc; do
    wanted train 25 || break
    stage "train $strategy" 60 train.txt "$PY" train.py scenes/still_life -m "$scratch/$strategy" -r 480 \
      --iterations $ITERATIONS --max-splats $SPLATS --strategy $strategy --backend "$GPU_DEVICE" --quiet
    "$PY" -m tools.gpu.record train "$scratch/$strategy/results.json" \
      strategy psnr ssim splats seconds peak_device_memory_mb device 2>&1 | tee -a "$SUMMARY"
  done
  wanted train 25 && stage "sweep parts" 40 train.txt "$PY" -m tools.gpu.sweep_parts
}

run_ncu() {
  command -v ncu >/dev/null || { report "ncu: SKIPPED, not found"; return; }
  stage ncu 80 ncu.txt ncu --clock-control none -c 10 \
    -k 'regex:blend_kernel|blend_backward_kernel|gather_kernel|emit|loss_kernel|tile_order' \
    --section SpeedOfLight --section Occupancy --section SchedulerStats --section WarpStateStats \
    --section ComputeWorkloadAnalysis --section MemoryWorkloadAnalysis --section LaunchStats \
    --metrics "$(paste -sd, <<'METRICS'
gpu__time_duration.sum
smsp__inst_executed.sum
smsp__inst_executed_pipe_alu.sum
smsp__inst_executed_pipe_fma.sum
smsp__inst_executed_pipe_xu.sum
smsp__inst_executed_pipe_lsu.sum
l1tex__data_pipe_lsu_wavefronts_mem_shared.sum
l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum
l1tex__data_pipe_lsu_wavefronts.avg.pct_of_peak_sustained_elapsed
METRICS
)" "$PY" -m tools.gpu.one_pass
}

wanted load 20 && { run_load || { report "end: nothing can run"; exit 1; }; }
wanted smoke 30 && run_smoke
wanted tests 60 && run_tests
wanted oom 20 && stage oom 40 tests.txt "$PY" -m pytest -p no:cacheprovider -q --tb=short "$OOM"
# From here on, one stage at a time: times count.
wanted speed 30 && run_speed
wanted profile 30 && stage profile 75 speed.txt "$PY" -m tools.gpu.profile_kernels
wanted train 30 && run_train
wanted ncu 40 && run_ncu
wanted million 40 && stage million 80 train.txt "$PY" -m tools.gpu.million
wanted scaling 25 && stage scaling 45 speed.txt "$PY" -m benchmarks.render.raster \
  $([ "$GPU_TOY" = 1 ] && echo "--toy --workloads W0b" || echo "--workloads W1") --threads 1 2 4 8 16 --scalar-repeats 0 --steps 0 --repeats 3
report "end; python -m tools.gpu.report $OUT FILE.md makes one page of the results"
