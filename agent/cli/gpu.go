package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func (a *app) gpuCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "gpu", Short: "GPUs: who holds which, how they are linked", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List GPUs with state and owner", Args: args(0, 0, "no arguments"),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.gpuList(cmd.Context()) }},
		&cobra.Command{Use: "show GPU", Short: "Everything about one GPU", Args: args(1, 1, "a GPU: UUID, PCI address or index"),
			ValidArgsFunction: a.completeGPUs,
			RunE:              func(cmd *cobra.Command, given []string) error { return a.gpuShow(cmd.Context(), given[0]) }},
		&cobra.Command{Use: "topology", Short: "How GPUs reach each other", Args: args(0, 0, "no arguments"),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.gpuTopology(cmd.Context()) }},
		a.gpuAction(api.GPUQuarantine, "Take a GPU out of use", "nobody gets it until it is released"),
		a.gpuAction(api.GPURelease, "Give a quarantined GPU back, through hand-over", "it is given to tenants again"),
		unbuilt("health"), unbuilt("bench"),
	)
	return cmd
}

func (a *app) gpuAction(action api.GPUAction, short, consequence string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: string(action) + " GPU", Short: short, Args: args(1, 1, "a GPU: UUID, PCI address or index"),
		ValidArgsFunction: a.completeGPUs,
		RunE: func(cmd *cobra.Command, given []string) error {
			device, err := a.findGPU(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			if err := a.confirm(cmd.Context(), string(action)+" "+string(device.UUID), consequence); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			change, err := c.SetGPU(cmd.Context(), device.UUID, api.GPUActionRequest{Action: action, Reason: reason})
			if err != nil {
				return err
			}
			if err := a.finish(cmd.Context(), change); err != nil || a.noWait {
				return err
			}
			if a.structured() {
				return a.show(change, nil, nil)
			}
			fmt.Fprintln(a.Out, device.UUID)
			return nil
		}}
	cmd.Flags().StringVar(&reason, "reason", "", "kept in the ledger")
	return cmd
}

func (a *app) gpus(ctx context.Context) ([]api.GPU, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	return c.GPUs(ctx)
}

// findGPU takes a UUID, a PCI address or the index NVML gives at the moment.
func (a *app) findGPU(ctx context.Context, text string) (api.GPU, error) {
	all, err := a.gpus(ctx)
	if err != nil {
		return api.GPU{}, err
	}
	for _, g := range all {
		if text == string(g.UUID) || strings.EqualFold(text, string(g.PCI)) || text == strconv.Itoa(g.Index) {
			return g, nil
		}
	}
	return api.GPU{}, fault.New(fault.NotFound, "gpu "+quoted(text), "there is none").WithHint("gpuhost gpu list")
}

func (a *app) gpuList(ctx context.Context) error {
	all, err := a.gpus(ctx)
	if err != nil {
		return err
	}
	return a.show(api.List[api.GPU]{Items: all}, func() []string {
		names := make([]string, len(all))
		for i, g := range all {
			names[i] = string(g.UUID)
		}
		return names
	}, func() *table { return a.gpuTable(all) })
}

func (a *app) gpuTable(all []api.GPU) *table {
	t := newTable("GPU", "PCI", "MODEL", "MEMORY", "NUMA", "STATE", "OWNER", "UUID")
	if a.wide() {
		t.head = append(t.head, "USED", "TEMP", "POWER", "SINCE", "REASON", "SERIAL")
	}
	for _, g := range all {
		row := []any{g.Index, g.PCI, g.Model, size(int64(g.MemoryBytes)), g.NUMANode, cell{g.State, stateColour(g.State)}, owner(g), g.UUID}
		if a.wide() {
			used, temperature, power := sampleTexts(g.Sample)
			row = append(row, used, temperature, power, stamp(g.Since), g.Reason, g.Serial)
		}
		t.add(row...)
	}
	return t
}

func stateColour(state string) colour {
	switch state {
	case "Free":
		return green
	case "Quarantined":
		return red
	case "Assigned":
		return plain
	}
	return yellow
}

func owner(g api.GPU) string {
	if g.Tenant == "" {
		return ""
	}
	return g.Tenant + "/" + g.Instance
}

func sampleTexts(s *gpu.Sample) (used, temperature, power string) {
	if s == nil {
		return "", "", ""
	}
	if s.UtilizationPercent != nil {
		used = fmt.Sprintf("%.0f%%", *s.UtilizationPercent)
	}
	if s.TemperatureCelsius != nil {
		temperature = fmt.Sprintf("%.0fC", *s.TemperatureCelsius)
	}
	if s.PowerWatts != nil {
		power = fmt.Sprintf("%.0fW", *s.PowerWatts)
	}
	return used, temperature, power
}

func (a *app) gpuShow(ctx context.Context, text string) error {
	g, err := a.findGPU(ctx, text)
	if err != nil {
		return err
	}
	return a.show(g, func() []string { return []string{string(g.UUID)} }, func() *table {
		used, temperature, power := sampleTexts(g.Sample)
		t := newTable("FIELD", "VALUE")
		t.add("uuid", g.UUID)
		t.add("index", g.Index)
		t.add("pci address", g.PCI)
		t.add("model", g.Model)
		t.add("architecture", g.Architecture)
		t.add("serial", g.Serial)
		t.add("vbios", g.VBIOS)
		t.add("memory", size(int64(g.MemoryBytes)))
		t.add("cores", g.Cores)
		t.add("multiprocessors", g.SMs)
		t.add("numa node", g.NUMANode)
		t.add("mig", g.MIGEnabled)
		t.add("state", cell{g.State, stateColour(g.State)})
		t.add("owner", owner(g))
		t.add("reason", g.Reason)
		t.add("since", stamp(g.Since))
		t.add("utilization", used)
		t.add("temperature", temperature)
		t.add("power", power)
		return t
	})
}

// gpuTopology prints a matrix as nvidia-smi does.
func (a *app) gpuTopology(ctx context.Context) error {
	all, err := a.gpus(ctx)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	links, err := c.Links(ctx)
	if err != nil {
		return err
	}
	return a.show(api.List[gpu.Link]{Items: links}, func() []string { return nil }, func() *table { return linkTable(all, links) })
}

func linkTable(all []api.GPU, links []gpu.Link) *table {
	between := make(map[[2]gpu.UUID]string, 2*len(links))
	for _, l := range links {
		text := string(l.Kind)
		if l.Kind == gpu.LinkNVLink {
			text += strconv.Itoa(l.Lanes)
		}
		between[[2]gpu.UUID{l.A, l.B}], between[[2]gpu.UUID{l.B, l.A}] = text, text
	}
	t := newTable("GPU")
	for _, g := range all {
		t.head = append(t.head, strconv.Itoa(g.Index))
	}
	t.head = append(t.head, "NUMA", "OWNER")
	for _, from := range all {
		row := []any{from.Index}
		for _, to := range all {
			text := between[[2]gpu.UUID{from.UUID, to.UUID}]
			if from.UUID == to.UUID {
				text = "X"
			}
			row = append(row, text)
		}
		t.add(append(row, from.NUMANode, owner(from))...)
	}
	return t
}
