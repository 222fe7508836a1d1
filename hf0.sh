cd /tmp/exp/s10
while [ "$(grep -c mppigps out/ra0.csv 2>/dev/null || echo 0)" -lt 1 ]; do sleep 1; done
for p in $(pgrep -f "bash e2.sh"); do kill $p; done
for p in $(pgrep -f "benchmarks/exploration.py ReachAround"); do kill $p; done
bash hf.sh 0 "3 4"
