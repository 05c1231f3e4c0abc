"""What tests of several packages need: peers, engines, processes, factories."""
