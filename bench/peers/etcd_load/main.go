// A closed loop against etcd: each client sends its next request when its last one is answered. Prints one JSON object.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
)

const (
	settle = 700 * time.Millisecond
	keys   = 100_000
)

type worker struct {
	client    *clientv3.Client
	random    *rand.Rand
	latencies []float64
	all       int
	failed    int
}

func (w *worker) request(op, value string) error {
	if op == "range" {
		_, err := w.client.Get(context.Background(), "ready")
		return err
	}
	_, err := w.client.Put(context.Background(), fmt.Sprintf("%016d", w.random.Intn(keys)), value)
	return err
}

func (w *worker) run(op, value string, begin, end time.Time) {
	for sent := time.Now(); sent.Before(end); sent = time.Now() {
		if err := w.request(op, value); err != nil {
			w.failed++
			continue
		}
		w.all++
		if now := time.Now(); now.After(begin) && now.Before(end) {
			w.latencies = append(w.latencies, now.Sub(sent).Seconds())
		}
	}
}

func main() {
	endpoint := flag.String("endpoint", "", "host:port of the leader")
	op := flag.String("op", "put", "put, or range (linearizable)")
	clients := flag.Int("clients", 1, "how many at a time")
	connections := flag.Int("connections", 1, "that they share")
	payload := flag.Int("payload", 256, "bytes of a value")
	seconds := flag.Float64("seconds", 2, "that are measured, after a while of settling")
	flag.Parse()

	shared := make([]*clientv3.Client, *connections)
	for n := range shared {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{*endpoint}, DialTimeout: 5 * time.Second})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		shared[n] = client
	}
	workers := make([]*worker, *clients)
	begin := time.Now().Add(settle)
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	value := strings.Repeat("x", *payload)
	var group sync.WaitGroup
	for n := range workers {
		workers[n] = &worker{client: shared[n%*connections], random: rand.New(rand.NewSource(int64(n)))}
		group.Add(1)
		go func(w *worker) {
			defer group.Done()
			w.run(*op, value, begin, end)
		}(workers[n])
	}
	group.Wait()
	var latencies []float64
	all, failed := 0, 0
	for _, w := range workers {
		latencies = append(latencies, w.latencies...)
		all += w.all
		failed += w.failed
	}
	sort.Float64s(latencies)
	at := func(fraction float64) float64 {
		if len(latencies) == 0 {
			return 0
		}
		return latencies[int(float64(len(latencies)-1)*fraction)] * 1e3
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"per_s": float64(len(latencies)) / *seconds, "p50_ms": at(0.5), "p99_ms": at(0.99), "all": all, "failed": failed,
	})
}
