// k6 with one more module: `k6/x/load` lets a load end without cutting the requests that are on their way.
//
// k6 has no such end: SIGINT interrupts them, and their outcome is lost. Here SIGUSR1 stops new requests,
// and k6 is interrupted when the last one has been recorded.
package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.k6.io/k6/cmd"
	"go.k6.io/k6/js/modules"
)

type load struct {
	lock     sync.Mutex
	inFlight int
	stopping bool
}

// Now is the time in seconds since the epoch; JavaScript's own clock has only milliseconds.
func (l *load) Now() float64 {
	return float64(time.Now().UnixNano()) / 1e9
}

// Enter asks to make a request; false once the load is to end.
func (l *load) Enter() bool {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.stopping {
		return false
	}
	l.inFlight++
	return true
}

// Leave says that a request has been recorded.
func (l *load) Leave() {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.inFlight--
	l.endWhenIdle()
}

func (l *load) stopOn(signals <-chan os.Signal) {
	<-signals
	l.lock.Lock()
	defer l.lock.Unlock()
	l.stopping = true
	l.endWhenIdle()
}

func (l *load) endWhenIdle() {
	if l.stopping && l.inFlight == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
	}
}

func main() {
	load := new(load)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go load.stopOn(signals)
	modules.Register("k6/x/load", load)
	cmd.Execute()
}
