"""Images in and out: conversion, PNG files, labelled grids, colour maps, previews."""
