// Reads a cluster's configuration as kind does, and says what kind would say of it.
package main

import (
	"fmt"
	"os"

	"sigs.k8s.io/kind/pkg/internal/apis/config/encoding"
)

func main() {
	config, err := encoding.Load(os.Args[1])
	if err == nil {
		err = config.Validate()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(len(config.Nodes), "nodes")
}
