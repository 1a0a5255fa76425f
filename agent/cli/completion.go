package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// completeTimeout is how long a person who pressed Tab waits for an agent.
const completeTimeout = 400 * time.Millisecond

// complete asks the agent for words. Without an answer there are none: a shell
// has no place for errors.
func (a *app) complete(cmd *cobra.Command, words func(context.Context, *client.Client) []string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	c, err := a.connect()
	if err != nil {
		return nil, directive
	}
	return words(ctx, c), directive
}

func (a *app) completeTenants(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) []string {
		return objectNames(ctx, c, spec.KindTenant, "")
	})
}

func (a *app) completeKinds(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var words []string
	for _, kind := range spec.Kinds() {
		words = append(words, kind.Lower())
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeNames(kind spec.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return a.complete(cmd, func(ctx context.Context, c *client.Client) []string {
			tenant, begunTenant, both := a.tenant, "", false
			if begunTenant, _, both = strings.Cut(begun, "/"); both {
				tenant = begunTenant
			}
			names := objectNames(ctx, c, kind, tenant)
			if a.tenant == "" {
				return names
			}
			for i := range names { // --tenant is given: the name alone is enough
				names[i] = strings.TrimPrefix(names[i], a.tenant+"/")
			}
			return names
		})
	}
}

func (a *app) completeKindAndNames(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(given) == 0 {
		return a.completeKinds(cmd, given, begun)
	}
	kind, ok := spec.ParseKind(given[0])
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNames(kind)(cmd, given, begun)
}

func (a *app) completeGPUs(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) []string {
		var words []string
		all, _ := c.GPUs(ctx)
		for _, g := range all {
			words = append(words, string(g.UUID))
		}
		return words
	})
}

func (a *app) completeImages(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) []string {
		var words []string
		all, _ := c.Images(ctx, a.tenant)
		for _, image := range all {
			words = append(words, image.Name)
		}
		return words
	})
}

func objectNames(ctx context.Context, c *client.Client, kind spec.Kind, tenant string) []string {
	objects, _ := c.List(ctx, kind, tenant)
	return namesOf(objects)
}
