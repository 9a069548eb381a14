"""providers/process"""
